"""Fetching from an object store that the server names, if the device names its host too."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from pilotwave_agent.host.disk import Disk
from pilotwave_agent.net.download import Downloader, Limits
from pilotwave_agent.net.download_hosts import find_host
from pilotwave_agent.net.http import Channel
from pilotwave_agent.net.mirrors import DEAD_S, WRONG_S, Mirrors
from pilotwave_agent.settings.config import BadConfig, parse
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.manifest import FileEntry
from tests.peers.registry import Registry, Reply

DATA = random.Random(4).randbytes(300_000)
ENTRY = FileEntry("model.onnx", len(DATA), sha256_hex(DATA))
BLOB = f"/blobs/{ENTRY.sha256}"
LINKS = f"/device/v1/links{BLOB}"
KEY = f"/models/fleet{BLOB}"
SIGNED = f"{KEY}?X-Amz-Expires=300&X-Amz-Signature=good"
OWN = {"server": "http://127.0.0.1", "device": "cam-1", "data_dir": "."}


class Store(Registry):
    """An object store that opens one object to whoever has its signed URL."""

    def __init__(self) -> None:
        super().__init__()
        self.files = {KEY: DATA}
        self.heard: list[dict[str, str]] = []

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Reply:
        self.heard.append(headers)
        if path != SIGNED:
            return Reply(403)
        reply = self._blob(KEY, headers)
        return replace(reply, headers={**reply.headers, "ETag": '"its own"'})


class Device:
    """A device's downloader, its server, and a store that the server names."""

    def __init__(self, registry: Registry, store: Store, folder: Path) -> None:
        self.registry, self.store, self._folder = registry, store, folder
        self.mirrors = Mirrors()
        self.fetcher = Downloader(Disk(), folder / "blobs", Channel(registry.url), "token")
        registry.files[BLOB] = DATA
        registry.direct_url = store.url + SIGNED
        self.name(store.url)

    def name(self, *hosts: str) -> None:
        """Begin a new process whose settings name these hosts."""
        self.close()
        self.mirrors = Mirrors(
            hosts=hosts,
            disk=Disk(),
            path=self._folder / "mirrors" / "health.json",
            connect=partial(Channel, gap_s=2.0),
            clock=lambda: 1_000_000.0,
        )
        self.fetcher = Downloader(
            Disk(),
            self._folder / "blobs",
            Channel(self.registry.url, gap_s=2.0),
            "token",
            Limits(0),
            mirrors=self.mirrors,
        )

    def close(self) -> None:
        self.fetcher.channel.close()
        self.mirrors.close()

    def fetch(self) -> tuple[list[str], list[str]]:
        """Fetch anew; return what the store and the server were asked for."""
        seen = len(self.store.requests), len(self.registry.requests)
        (self.fetcher.blobs / ENTRY.sha256).unlink(missing_ok=True)
        self.fetcher.fetch([ENTRY])
        assert (self.fetcher.blobs / ENTRY.sha256).read_bytes() == DATA
        found = self.store.requests[seen[0] :], self.registry.requests[seen[1] :]
        return [r.split()[1] for r in found[0]], [r.split()[1] for r in found[1]]


@pytest.fixture
def store() -> Iterator[Store]:
    made = Store()
    yield made
    made.stop()


@pytest.fixture
def device(registry: Registry, store: Store, tmp_path: Path) -> Iterator[Device]:
    made = Device(registry, store, tmp_path)
    yield made
    made.close()


def test_the_bytes_come_from_the_store_and_the_token_stays_at_home(device: Device) -> None:
    assert device.fetch() == ([SIGNED], [LINKS])
    assert all("Authorization" not in headers for headers in device.store.heard)
    assert dict(device.mirrors.direct_bytes) == {device.store.url: len(DATA)}


def test_without_named_hosts_nobody_is_asked_for_a_link(device: Device) -> None:
    device.name()
    assert device.fetch() == ([], [BLOB])


def test_a_server_that_says_nothing_of_a_store_sends_the_file_itself(device: Device) -> None:
    device.registry.direct_url = None
    assert device.fetch() == ([], [LINKS, BLOB])


def elsewhere(url: str) -> list[object]:
    """URLs that lead elsewhere, or look as if they did not."""
    host = url.removeprefix("http://")
    return [
        f"http://127.0.0.2:{host.partition(':')[2]}{SIGNED}",
        f"https://{host}{SIGNED}",
        f"http://127.0.0.1:1{SIGNED}",
        f"http://{host}@127.0.0.1:1{SIGNED}",
        f"http://user@{host}{SIGNED}",
        f"http://127.0.0.1:1\\@{host}{SIGNED}",
        f"http://127.0.0.1:1#@{host}{SIGNED}",
        f"http://{host}.example{SIGNED}",
        f"http://{host}/a b",
        f"http://{host}/a\r\nHost: x",
        f"file://{host}/etc/passwd",
        f"//{host}{SIGNED}",
        f"http://{host}/é",
        f"http://{host}/" + "a" * 9000,
        "http://[::1",
        "",
        7,
        None,
        {"url": url},
    ]


@pytest.mark.parametrize("number", range(len(elsewhere("http://127.0.0.1:80"))))
def test_a_server_cannot_send_the_device_to_a_host_that_is_not_named(
    device: Device, number: int
) -> None:
    device.registry.direct_url = elsewhere(device.store.url)[number]
    assert device.fetch() == ([], [LINKS, BLOB])
    assert not device.mirrors.direct_bytes


def test_a_redirect_of_the_store_is_not_followed(device: Device, registry: Registry) -> None:
    to = {"Location": f"{registry.url}/elsewhere"}
    device.store.bend = lambda path, reply: Reply(307, headers=to)
    assert device.fetch() == ([SIGNED], [LINKS, BLOB])


FAULTS: list[tuple[str, Callable[[Reply], Reply], float]] = [
    ("one bit", lambda r: replace(r, body=r.body[:-1] + bytes([r.body[-1] ^ 1])), WRONG_S),
    ("other bytes", lambda r: replace(r, body=os.urandom(len(DATA))), WRONG_S),
    ("long", lambda r: replace(r, body=DATA + b"x"), WRONG_S),
    ("expired", lambda r: Reply(403), DEAD_S),
    ("absent", lambda r: Reply(404), DEAD_S),
]


@pytest.mark.parametrize(("fault", "alone_s"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS])
def test_a_bad_store_is_left_alone_and_the_server_asked(
    device: Device, fault: Callable[[Reply], Reply], alone_s: float
) -> None:
    device.store.bend = lambda path, reply: fault(reply)
    asked, of_server = device.fetch()
    assert (asked, of_server[-1]) == ([SIGNED], BLOB)
    assert device.mirrors.health(device.store.url).until - 1_000_000.0 in (alone_s, DEAD_S)
    device.name(device.store.url)  # another process knows it too
    assert device.fetch() == ([], [BLOB])


def test_what_came_before_a_line_broke_is_kept_and_counted(device: Device) -> None:
    cuts = iter([100_000])
    device.store.bend = lambda path, reply: replace(reply, cut=next(cuts, None))
    assert device.fetch()[1] == [LINKS]
    assert [h.get("Range") for h in device.store.heard] == [None, "bytes=100000-"]
    assert sum(device.mirrors.direct_bytes.values()) == len(DATA)


def test_hosts_are_named_without_a_path() -> None:
    named = ["models.s3.example", "store.example:9000", "http://10.0.0.7:9000", "models.s3.example"]
    assert parse({**OWN, "download_hosts": named}, base=Path()).download_hosts == (
        "https://models.s3.example",
        "https://store.example:9000",
        "http://10.0.0.7:9000",
    )
    for wrong in ("https://x/y", "ftp://x", "a b", "", "user@x"):
        with pytest.raises(BadConfig, match="download_hosts"):
            parse({**OWN, "download_hosts": [wrong]}, base=Path())


def test_a_default_port_is_the_same_host() -> None:
    hosts = ["https://models.example", "http://10.0.0.7:80"]
    assert find_host("https://Models.example:443/a?b=c", hosts) == (hosts[0], "/a?b=c")
    assert find_host("http://10.0.0.7/a", hosts) == (hosts[1], "/a")
