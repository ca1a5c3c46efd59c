"""A device that only a forward proxy leads out."""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection
from websockets.sync.server import serve as serve_websocket

from pilotwave_agent.net.http import Channel, TooSlow, Unreachable
from pilotwave_agent.push.channel import Lost
from pilotwave_agent.push.websocket import WebSocketChannel
from pilotwave_agent.settings import config as settings
from pilotwave_agent.settings.config import BadConfig, Config, parse
from pilotwave_agent.settings.proxies import (
    Proxies,
    from_environment,
    named_in_environment,
    read_proxy,
)
from pilotwave_agent.trust.tuf_fetcher import Fetcher
from tests import certificates
from tests.agent.resident import log_of, resident, run_agent, settle, wait_until
from tests.peers.device import Device
from tests.peers.forwarding import ForwardProxy
from tests.peers.registry import Registry, example

HOST = "pilotwave.invalid"
PATH = "/tuf/metadata/1.root.json"
SECRET = f"Basic {base64.b64encode(b'cam:p@ss word').decode()}"
BASE: dict[str, Any] = {"server": "http://127.0.0.1:1", "device": "cam-1", "data_dir": "."}


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


@pytest.fixture
def proxy(registry: Registry) -> Iterator[ForwardProxy]:
    made = ForwardProxy({HOST: port_of(registry.url), "127.0.0.1": port_of(registry.url)})
    yield made
    made.stop()


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[tuple[int, str]]:
    """A server that speaks TLS as `HOST`: its port, and the file that vouches for it."""
    (tmp_path / "tls.pem").write_bytes(b"".join(certificates.self_signed(HOST)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "tls.pem")

    class Hello(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *words: object) -> None:
            return

        def do_GET(self) -> None:
            assert self.headers["Host"].startswith(HOST)
            assert "Proxy-Authorization" not in self.headers
            self.send_response(200)
            self.send_header("Content-Length", "5")
            self.end_headers()
            self.wfile.write(b"hello")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hello)
    server.daemon_threads = True
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port, str(tmp_path / "tls.pem")
    server.shutdown()
    server.server_close()


def through(proxy: ForwardProxy, *without: str) -> Proxies:
    found = read_proxy(proxy.url)
    return Proxies(found, found, without)


# --- one request


def test_a_plain_server_is_asked_by_its_whole_url(registry: Registry, proxy: ForwardProxy) -> None:
    url = f"http://{HOST}:{port_of(registry.url)}"
    channel = Channel(url, proxies=through(proxy))
    for _ in range(2):
        assert channel.request("GET", PATH).body == registry.root
    assert proxy.asked == [f"GET {url}{PATH}"] * 2
    channel.close()


def test_a_server_with_tls_is_led_to_and_its_certificate_checked(tls: tuple[int, str]) -> None:
    port, ca_file = tls
    proxy = ForwardProxy({HOST: port, "other.invalid": port})
    channel = Channel(f"https://{HOST}:{port}", ca_file=ca_file, proxies=through(proxy))
    for _ in range(2):
        assert channel.request("GET", "/").body == b"hello"
    assert proxy.asked == [f"CONNECT {HOST}:{port}"]  # one connection, kept
    channel.close()
    for url, roots in ((f"https://other.invalid:{port}", ca_file), (f"https://{HOST}:{port}", "")):
        wrong = Channel(url, ca_file=roots or None, proxies=through(proxy))
        with pytest.raises(Unreachable, match=r"(?i)certificate"):
            wrong.request("GET", "/")
    proxy.stop()


def test_metadata_comes_through_the_proxy_too(
    registry: Registry, proxy: ForwardProxy, tls: tuple[int, str]
) -> None:
    url = f"http://{HOST}:{port_of(registry.url)}"
    channel = Channel(url, proxies=through(proxy))
    assert Fetcher(channel).download_bytes(PATH, 1 << 20) == registry.root
    assert proxy.asked == [f"GET {url}{PATH}"]
    channel.close()
    port, ca_file = tls
    proxy.leads[HOST], proxy.asked = port, []
    channel = Channel(f"https://{HOST}:{port}", ca_file=ca_file, proxies=through(proxy))
    assert Fetcher(channel).download_bytes("/", 10) == b"hello"
    assert proxy.asked == [f"CONNECT {HOST}:{port}"]
    channel.close()


def test_the_websocket_comes_through_the_proxy_too(proxy: ForwardProxy) -> None:
    def stay(socket: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            socket.recv(timeout=10)

    with serve_websocket(stay, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.socket.getsockname()[1]
        proxy.leads[HOST] = port
        url, lead = f"http://{HOST}:{port}", through(proxy)
        line = WebSocketChannel(url, "t", ca_file=None, timeout_s=5, ping_s=60, proxies=lead)
        assert proxy.asked == [f"CONNECT {HOST}:{port}"]
        line.close()
        server.shutdown()


def test_credentials_are_given_and_asked_for_by_name(registry: Registry) -> None:
    proxy = ForwardProxy({HOST: port_of(registry.url)}, credentials=SECRET)
    right = read_proxy(f"http://cam:p%40ss%20word@{proxy.place}")
    assert "p@ss" not in right.url
    server = f"http://{HOST}:{port_of(registry.url)}"
    led = Channel(server, proxies=Proxies(right, right))
    assert led.request("GET", PATH).status == 200
    led.close()
    bare, wrong = read_proxy(proxy.url), read_proxy(f"http://cam:no@{proxy.place}")
    for lead, words in ((bare, "asks for credentials"), (wrong, "refuses these credentials")):
        for scheme in ("http", "https"):
            channel = Channel(f"{scheme}://{HOST}", proxies=Proxies(lead, lead))
            with pytest.raises(Unreachable, match=words):
                channel.request("GET", PATH)
    both = Proxies(bare, bare)
    with pytest.raises(Lost, match="asks for credentials"):
        WebSocketChannel(server, "t", ca_file=None, timeout_s=5, ping_s=60, proxies=both)
    proxy.stop()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "status 502"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\n\r\n", "status 302"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 9000, "not HTTP"),
        (b"", "not HTTP"),
    ],
)
def test_what_a_proxy_may_answer_instead(answer: bytes, words: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"

        def speak() -> None:
            near, _ = listener.accept()
            with near:
                near.recv(4096)
                near.sendall(answer)

        threading.Thread(target=speak, daemon=True).start()
        lead = read_proxy(url)
        with pytest.raises(Unreachable, match=words):
            Channel(f"https://{HOST}", proxies=Proxies(lead, lead)).request("GET", "/")


def test_a_proxy_that_drips_is_given_up_at_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        lead = read_proxy(f"http://127.0.0.1:{listener.getsockname()[1]}")

        def drip() -> None:
            near, _ = listener.accept()
            with near:
                for byte in b"HTTP/1.1 200 OK\r\nX: " + b"y" * 1000:
                    try:
                        near.sendall(bytes([byte]))
                    except OSError:
                        return
                    time.sleep(0.05)

        threading.Thread(target=drip, daemon=True).start()
        channel = Channel(f"https://{HOST}", deadline_s=0.6, proxies=Proxies(lead, lead))
        began = time.monotonic()
        with pytest.raises(TooSlow):
            channel.request("GET", "/")
        assert time.monotonic() - began < 3


# --- the settings


ROWS = [
    ("*", "cam.example", 80, True),
    ("example", "cam.example", 80, True),
    (".example", "cam.example", 80, True),
    ("*.example", "cam.example", 80, True),
    ("cam.example", "CAM.example.", 80, True),
    ("ample", "cam.example", 80, False),
    ("cam.example:8080", "cam.example", 8080, True),
    ("cam.example:8080", "cam.example", 80, False),
    ("10.0.0.0/8", "10.1.2.3", 80, True),
    ("10.0.0.0/8", "11.1.2.3", 80, False),
    ("10.1.2.3", "10.1.2.3", 443, True),
    ("fd00::/8", "fd00::1", 80, True),
    ("[fd00::1]:8080", "fd00::1", 8080, True),
    ("[fd00::1]:8080", "fd00::1", 80, False),
    ("::1", "::1", 80, True),
    ("", "cam.example", 80, False),
    (".", "cam.example", 80, False),
]


@pytest.mark.parametrize(("rule", "host", "port", "direct"), ROWS)
def test_hosts_without_a_proxy(rule: str, host: str, port: int, direct: bool) -> None:
    lead = read_proxy("http://proxy.example:3128")
    assert (Proxies(lead, lead, (rule,)).to("http", host, port) is None) is direct


def configured(**settings: Any) -> Config:
    return parse({**BASE, **settings}, base=Path("/"))


def test_the_environment_is_heeded_where_the_owner_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://tls.example:1")
    monkeypatch.setenv("HTTP_PROXY", "plain.example:2")
    monkeypatch.setenv("NO_PROXY", "gateway.example, 10.0.0.0/8")
    unasked = configured()
    assert unasked.proxies == Proxies()
    assert named_in_environment() == "https_proxy"
    asked = configured(proxy="environment", no_proxy=["other.example"]).proxies
    assert asked.https == read_proxy("http://tls.example:1")
    assert asked.http == read_proxy("http://plain.example:2")
    assert asked.without == ("gateway.example", "10.0.0.0/8", "other.example")
    named, mine = configured(proxy="http://mine.example:3"), read_proxy("http://mine.example:3")
    assert named.proxies == Proxies(mine, mine)
    assert from_environment({"all_proxy": "http://all.example:4"}).https is not None
    assert from_environment({}) == Proxies()


def test_a_password_may_lie_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("p@ss word\n")
    found = parse(
        {**BASE, "proxy": "http://cam@proxy.example:3128", "proxy_password_file": "secret"},
        base=tmp_path,
    ).proxies
    assert found.http
    assert found.http.authorization == SECRET
    with pytest.raises(BadConfig, match="proxy_password_file"):
        configured(proxy="http://cam@proxy.example", proxy_password_file="nowhere")


@pytest.mark.parametrize(
    "wrong",
    [
        "https://proxy.example:3128",
        "socks5://proxy.example",
        "http://",
        "http://proxy.example:0",
        "http://proxy.example:hello",
        "http://cam:secret@proxy.example/path",
    ],
)
def test_a_proxy_that_cannot_be_used_is_refused_without_its_password(wrong: str) -> None:
    with pytest.raises(BadConfig, match=r"proxy: expected environment, or") as told:
        configured(proxy=wrong)
    assert "secret" not in str(told.value)


# --- a device


def test_a_device_behind_a_proxy_enrols_and_takes_its_orders(
    registry: Registry, tmp_path: Path
) -> None:
    registry.order(registry.publish("detector", "1.0.0", example("1.0.0")))
    proxy = ForwardProxy({HOST: port_of(registry.url)}, credentials=SECRET)
    (tmp_path / "root.json").write_bytes(registry.root)
    server = f"http://{HOST}:{port_of(registry.url)}"
    words = ["--server", server, "--name", "cam-1", "--code", "good"]
    words += ["--root", str(tmp_path / "root.json"), "--data", str(tmp_path / "cam-1")]
    lost = run_agent("enrol", *words)
    assert lost.returncode != 0
    made = run_agent("enrol", *words, "--proxy", f"http://cam:p%40ss%20word@{proxy.place}")
    assert made.returncode == 0, made.stderr
    path = tmp_path / "cam-1" / "agent.toml"
    assert path.stat().st_mode & 0o077 == 0  # it holds a password
    device = Device(registry, path, settings.load(path))
    settle(device, probation_s=0)
    with resident(device):
        wait_until(lambda: device.slot().current, "the version")
    kinds = {line.split("/")[3] for line in proxy.asked}
    assert kinds >= {"device", "tuf", "blobs"}
    assert all(f"{HOST}:" in line for line in proxy.asked)
    assert "p@ss" not in log_of(device).read_text() + made.stdout
    proxy.stop()


def test_a_proxy_in_the_environment_that_is_not_used_is_told_of(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.invalid:3128")
    with resident(device):
        wait_until(lambda: "https_proxy is set and not used" in log_of(device).read_text(), "it")
        wait_until(lambda: device.registry.check_ins, "a report, without the proxy")
