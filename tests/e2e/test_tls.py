"""HTTPS with a private authority: by the server itself and by nginx before it, to a real agent and
the real command."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from demo.stage import CommandFailed
from pilotwave_server.certificate import Renewal
from pilotwave_server.errors import BadSetting
from tests.certificates import self_signed
from tests.e2e.stage import ForkedStage
from tests.peers.gateway import FRONT, NGINX, Gateway

pytestmark = pytest.mark.long

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"
SETTINGS = {"PILOTWAVE_POLL_INTERVAL_S": "1", "PILOTWAVE_CHECK_IN_INTERVAL_S": "3"}
LINES = "ssl_certificate {cert};\n    ssl_certificate_key {key};\n    server_tokens off;"


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """A certificate for `localhost` that no public authority vouches for, and its key."""
    write(tmp_path)
    return tmp_path


def write(folder: Path) -> None:
    cert, key = self_signed("localhost")
    for name, data in (("cert.pem", cert), ("key.pem", key)):
        (folder / f"{name}.new").write_bytes(data)
        (folder / f"{name}.new").replace(folder / name)


@pytest.fixture
def stage(private: Path) -> Iterator[ForkedStage]:
    # the command trusts the private authority as any program that uses OpenSSL
    more = {"SSL_CERT_FILE": str(private / "cert.pem"), "PILOTWAVE_DELTA_PROCESSES": "0"}
    made = ForkedStage(private, settings={**SETTINGS, **more})
    made.run("pilotwave-server", "init", "--data", "data", "--fleet", "x", "--token-file",
             "admin.token")  # fmt: skip
    yield made
    made.close()


def runs_a_version(stage: ForkedStage, url: str) -> None:
    """The whole way: keys, publishing, enrolling, an agent that installs."""
    stage.url = url
    stage.pilotwave("keys", "init", "--dir", "keys", "--plain")
    stage.pilotwave("models", "create", "m", "--publisher", "keys/publisher.pem")
    build = ("--variant", f"v={DIGITS / '1.0.0'}", "--key", "keys/publisher.pem")
    stage.pilotwave("publish", "m", "1.0.0", *build)
    stage.pilotwave("groups", "create", "g", "--selector", "*")
    stage.pilotwave("assign", "--yes", "m", "1.0.0", "--group", "g")
    code = stage.ask("codes", "create")["items"][0]["code"]
    who = ("--server", url, "--name", "cam", "--code", code, "--root", "keys/root.json")
    # an authority that vouches for another key
    (stage.root / "other.pem").write_bytes(self_signed("localhost")[0])
    with pytest.raises(CommandFailed, match="certificate"):
        stage.run("pilotwave-agent", "enrol", *who, "--ca-file", "other.pem", "--data", "not")
    stage.run("pilotwave-agent", "enrol", *who, "--ca-file", "cert.pem", "--data", "cam")
    stage.run("pilotwave-agent", "once", "--data", "cam")
    device = stage.ask("devices", "show", "cam")
    assert [m["current_version"] for m in device["models"]] == ["1.0.0"]


@pytest.mark.parametrize("workers", [1, 2])
def test_the_server_answers_https_itself(stage: ForkedStage, workers: int) -> None:
    words = ("--tls-cert", "cert.pem", "--tls-key", "key.pem", "--workers", str(workers))
    process = stage.start("server", "pilotwave-server", "run", "--data", "data", "--port", "0",
                          *words)  # fmt: skip
    log = stage.root / "server.log"
    deadline = time.monotonic() + 60
    while "listening on https://127.0.0.1:" not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    port = log.read_text().split("listening on https://127.0.0.1:")[1].split()[0]
    runs_a_version(stage, f"https://localhost:{port}")
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"http://localhost:{port}/livez")
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"https://localhost:{port}/livez")


@pytest.mark.skipif(not NGINX, reason="nginx is not installed")
def test_nginx_answers_https_before_it(stage: ForkedStage) -> None:
    stage.settings["PILOTWAVE_TRUSTED_PROXIES"] = "127.0.0.1"
    stage.start_server()
    template = stage.root / "front.conf.template"
    lines = LINES.format(cert=stage.root / "cert.pem", key=stage.root / "key.pem")
    text = FRONT.read_text().replace("${PILOTWAVE_LISTEN};", "${PILOTWAVE_LISTEN} ssl;")
    template.write_text(text.replace("server_tokens off;", lines))
    gateway = Gateway(stage.url, stage.root / "nginx", template=template)
    try:
        runs_a_version(stage, f"https://localhost:{gateway.port}")
    finally:
        gateway.stop()


def test_a_renewed_certificate_is_taken_while_it_runs(private: Path) -> None:
    files = private / "cert.pem", private / "key.pem"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    renewal = Renewal(context, *files)
    first = files[0].read_bytes()
    assert seen_by_a_client(context, first)
    # half a renewal: the key does not fit
    kept = files[1].read_bytes()
    files[1].write_bytes(self_signed("localhost")[1])
    with pytest.raises(BadSetting, match="the key that belongs to it"):
        renewal.look()
    assert seen_by_a_client(context, first)
    files[1].write_bytes(kept)
    write(private)
    renewal.look()
    assert not seen_by_a_client(context, first)
    assert seen_by_a_client(context, files[0].read_bytes())


def seen_by_a_client(context: ssl.SSLContext, authority: bytes) -> bool:
    """Whether a client that trusts `authority` alone takes what is served with this context."""
    theirs = ssl.create_default_context(cadata=authority.decode())
    ends = [ssl.MemoryBIO() for _ in range(4)]
    server = context.wrap_bio(ends[0], ends[1], server_side=True)
    client = theirs.wrap_bio(ends[2], ends[3], server_hostname="localhost")
    for _ in range(6):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError:
                return False
            ends[0].write(ends[3].read())
            ends[2].write(ends[1].read())
    return client.cipher() is not None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--tls-cert", "cert.pem"), "go together"),
        (("--tls-cert", "cert.pem", "--tls-key", "other.pem"), "the key that belongs to it"),
        (("--tls-cert", "gone.pem", "--tls-key", "key.pem"), "must be able to read both"),
        (("--tls-cert", "key.pem", "--tls-key", "key.pem"), "expected a PEM certificate"),
    ],
)
def test_what_cannot_be_a_certificate_is_refused_at_the_start(
    stage: ForkedStage, words: tuple[str, ...], said: str
) -> None:
    (stage.root / "other.pem").write_bytes(self_signed("localhost")[1])
    with pytest.raises(CommandFailed, match=said):
        stage.run("pilotwave-server", "run", "--data", "data", "--port", "0", *words)
