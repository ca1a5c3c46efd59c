"""Fetching from mirrors that serve, die, drip and lie: the file comes, whatever they do."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from pilotwave_agent.host.disk import Disk
from pilotwave_agent.net import mirror_first
from pilotwave_agent.net.deltas import Deltas
from pilotwave_agent.net.download import Downloader, Limits
from pilotwave_agent.net.http import Channel
from pilotwave_agent.net.mirrors import DEAD_S, LONGEST_S, WRONG_S, Mirrors
from pilotwave_agent.settings.config import BadConfig, parse
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.manifest import FileEntry
from pilotwave_protocol.states import Reason
from tests.agent.test_deltas import Case
from tests.peers.mirror import Mirror, mirror
from tests.peers.registry import Registry, Reply, problem

__all__ = ["mirror"]

DATA = random.Random(3).randbytes(300_000)  # each process of the tests names them alike
ENTRY = FileEntry("model.onnx", len(DATA), sha256_hex(DATA))
BLOB = f"/blobs/{ENTRY.sha256}"
LINKED = f"{BLOB}?link=good"


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Site:
    """A device's downloader, its server and its mirror, each with what it was asked for."""

    def __init__(self, registry: Registry, mirror: Mirror, folder: Path) -> None:
        self.registry, self.mirror, self.clock = registry, mirror, Clock()
        self.health = folder / "mirrors" / "health.json"
        self.fetcher = Downloader(
            Disk(), folder / "blobs", Channel(registry.url, gap_s=2.0), "token", Limits(0)
        )
        self.again()
        registry.files[BLOB] = DATA

    def again(self, *urls: str) -> Mirrors:
        """Begin a new process on the same data folder."""
        self.fetcher.mirrors.close()
        made = Mirrors(
            urls or [self.mirror.url],
            disk=Disk(),
            path=self.health,
            connect=partial(Channel, gap_s=2.0),
            clock=self.clock,
        )
        self.fetcher = replace(self.fetcher, mirrors=made)
        return made

    def fetch(self, entry: FileEntry = ENTRY, data: bytes = DATA) -> tuple[list[str], list[str]]:
        """Fetch anew; return what the mirror and the server were asked for."""
        seen = len(self.mirror.requests), len(self.registry.requests)
        (self.fetcher.blobs / entry.sha256).unlink(missing_ok=True)
        self.fetcher.fetch([entry])
        assert (self.fetcher.blobs / entry.sha256).read_bytes() == data
        found = self.mirror.requests[seen[0] :], self.registry.requests[seen[1] :]
        return [r.split()[1] for r in found[0]], [r.split()[1] for r in found[1]]

    def left_alone(self) -> float:
        """For how many seconds the mirror is left alone."""
        return self.fetcher.mirrors.health(self.mirror.url).until - self.clock.now


@pytest.fixture
def site(registry: Registry, mirror: Mirror, tmp_path: Path) -> Iterator[Site]:
    made = Site(registry, mirror, tmp_path)
    yield made
    made.fetcher.channel.close()
    made.fetcher.mirrors.close()


def test_the_bytes_come_from_the_mirror_and_the_token_stays_at_home(site: Site) -> None:
    assert site.fetch() == ([LINKED], [f"/device/v1/links{BLOB}"])
    assert all("Authorization" not in headers for headers in site.mirror.heard)
    assert not site.health.exists()


# what a mirror does instead, whether its bytes were wrong, and whether it is asked again at once
FAULTS: list[tuple[str, Callable[[Reply], Reply], float]] = [
    ("one bit", lambda r: replace(r, body=r.body[:-1] + bytes([r.body[-1] ^ 1])), WRONG_S),
    ("other bytes", lambda r: replace(r, body=os.urandom(len(DATA))), WRONG_S),
    ("short", lambda r: replace(r, body=DATA[:1000]), WRONG_S),
    ("long", lambda r: replace(r, body=DATA + b"x"), WRONG_S),
    ("empty", lambda r: replace(r, body=b""), WRONG_S),
    ("another range", lambda r: replace(r, status=206), DEAD_S),
    ("absent", lambda r: Reply(404), DEAD_S),
    ("broken", lambda r: Reply(502), DEAD_S),
    ("refusing", lambda r: Reply(403), DEAD_S),
    ("redirecting", lambda r: Reply(302, headers={"Location": "http://127.0.0.1:1/"}), DEAD_S),
    ("compressing", lambda r: replace(r, headers={"Content-Encoding": "gzip"}), DEAD_S),
    ("cut at once", lambda r: replace(r, cut=0), DEAD_S),
    ("cut again and again", lambda r: replace(r, cut=1000), DEAD_S),
]


@pytest.mark.parametrize(
    ("fault", "alone_s"), [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS]
)
def test_a_bad_mirror_is_left_alone_and_the_server_asked(
    site: Site, fault: Callable[[Reply], Reply], alone_s: float
) -> None:
    site.mirror.bend = lambda path, reply: fault(reply)
    asked, of_server = site.fetch()
    assert asked
    assert of_server[-1] == BLOB
    assert site.left_alone() in (alone_s, DEAD_S)
    asked, of_server = site.fetch()
    assert (asked, of_server) == ([], [BLOB])
    site.mirror.bend = lambda path, reply: reply
    site.again()  # another process knows it too
    assert site.fetch()[0] == []
    site.clock.now += alone_s
    assert site.fetch()[0] == [LINKED]
    assert site.fetcher.mirrors.health(site.mirror.url).failures == 0


def test_a_dead_mirror_costs_nothing_but_the_try(site: Site) -> None:
    site.mirror.stop()
    assert site.fetch() == ([], [f"/device/v1/links{BLOB}", BLOB])
    assert site.fetch() == ([], [BLOB])


def test_each_failure_in_a_row_doubles_the_wait_up_to_a_bound(site: Site) -> None:
    mirrors, waits = site.fetcher.mirrors, []
    for _ in range(14):
        mirrors.failed(site.mirror.url, "dead")
        waits.append(site.left_alone())
        site.clock.now += waits[-1]
    assert waits[:4] == [30, 60, 120, 240]
    assert waits[-1] == LONGEST_S


def test_what_a_mirror_sent_before_it_died_is_kept(site: Site, registry: Registry) -> None:
    ranges: list[str] = []
    answer = registry._blob

    def spy(path: str, headers: dict[str, str]) -> Reply:
        ranges.append(headers.get("Range", ""))
        return answer(path, headers)

    registry._blob = spy  # type: ignore[method-assign]  # a spy
    cuts = iter([100_000])
    site.mirror.bend = lambda path, reply: replace(reply, cut=next(cuts, 0))
    site.fetch()
    assert ranges == ["bytes=100000-"]


def test_a_mirror_whose_line_breaks_is_gone_on_with(site: Site) -> None:
    cuts = iter([100_000, 100_000])
    site.mirror.bend = lambda path, reply: replace(reply, cut=next(cuts, None))
    assert site.fetch() == ([LINKED] * 3, [f"/device/v1/links{BLOB}"])
    assert [h.get("Range") for h in site.mirror.heard] == [None, "bytes=100000-", "bytes=200000-"]
    assert all("If-Range" not in h for h in site.mirror.heard)


def test_a_link_that_ended_under_way_is_no_fault_of_the_mirror(site: Site) -> None:
    """A long download is cut off at each end of its link, more often than a line may break."""
    site.registry.link_s = 0
    site.mirror.bend = lambda path, reply: replace(reply, cut=50_000, stall=1.05)
    asked, of_server = site.fetch()
    assert asked == [LINKED] * 6
    assert of_server == [f"/device/v1/links{BLOB}"] * 6


def test_a_mirror_that_drips_is_given_up(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror_first, "WINDOW_S", 0.5)
    site.mirror.bend = lambda path, reply: replace(reply, stall=0.1, piece=100)
    asked, of_server = site.fetch()
    assert (asked, of_server[-1]) == ([LINKED], BLOB)
    assert site.left_alone() == DEAD_S


def test_a_mirror_is_not_blamed_for_the_devices_own_cap(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror_first, "WINDOW_S", 0.2)
    monkeypatch.setattr(mirror_first, "LEAST_RATE", 250_000)
    site.fetcher.limits = Limits(0, max_rate=200_000)
    assert site.fetch()[0] == [LINKED]


def test_the_second_mirror_is_asked_when_the_first_is_dead(site: Site, registry: Registry) -> None:
    dead = Mirror(registry)
    dead.stop()
    site.again(dead.url, site.mirror.url)
    assert site.fetch() == ([LINKED], [f"/device/v1/links{BLOB}"])


def test_a_busy_server_behind_a_gateway_is_no_fault_of_the_gateway(site: Site) -> None:
    site.mirror.bend = lambda path, reply: Reply(503, headers={"Retry-After": "5"})
    assert site.fetch()[1][-1] == BLOB
    assert site.fetcher.mirrors.usable() == [site.mirror.url]


def test_without_leave_the_mirror_is_not_even_asked(site: Site) -> None:
    site.registry.bend = lambda path, reply: problem(401, "revoked")
    with pytest.raises(RefusedError) as no:
        site.fetch()
    assert no.value.reason is Reason.BLOB_DENIED
    assert site.mirror.requests == []


def test_leave_that_ends_under_way_is_no_fault_of_the_mirror(site: Site) -> None:
    site.registry.link_s = 0
    site.mirror.bend = lambda path, reply: replace(reply, cut=100_000, stall=1.05)
    links = iter([True])
    site.registry.bend = lambda path, reply: reply if next(links, 0) else problem(401, "revoked")
    with pytest.raises(RefusedError) as no:
        site.fetch()
    assert no.value.reason is Reason.BLOB_DENIED
    assert site.fetcher.mirrors.usable() == [site.mirror.url]
    assert (site.fetcher.blobs / f"{ENTRY.sha256}.part").read_bytes() == DATA[:100_000]


def test_a_server_that_knows_no_links_is_asked_for_the_file(site: Site) -> None:
    site.registry.bend = lambda path, reply: Reply(404) if "/links/" in path else reply
    assert site.fetch() == ([], [f"/device/v1/links{BLOB}", BLOB])


@pytest.mark.parametrize(
    "path",
    ["http://elsewhere.example/", f"/blobs/{'0' * 64}?link=good", f"{BLOB}?link=a b", f"{BLOB}", 7],
)
def test_a_link_to_elsewhere_is_not_followed(site: Site, path: object) -> None:
    body = json.dumps({"path": path, "expires_in_s": 300}).encode()
    site.registry.bend = lambda p, reply: Reply(200, body) if "/links/" in p else reply
    with pytest.raises(RefusedError):
        site.fetch()
    assert site.mirror.requests == []


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(tmp_path_factory.mktemp("pair"))


@pytest.fixture
def updating(site: Site, case: Case) -> Site:
    """A device that runs the old file of a pair, with a delta to the new one."""
    site.registry.files[case.path] = case.delta
    site.registry.files[f"/blobs/{case.entry.sha256}"] = case.new
    site.fetcher.blobs.mkdir()
    (site.fetcher.blobs / case.base.sha256).write_bytes(case.old)
    deltas = Deltas({case.entry.sha256: case.base}, 128 << 20)
    site.fetcher = replace(site.fetcher, shortcut=deltas.way)
    return site


def test_deltas_come_from_the_mirror_too(updating: Site, case: Case) -> None:
    asked, of_server = updating.fetch(case.entry, case.new)
    assert asked == [f"{case.path}?link=good"]
    assert of_server == [f"/device/v1/links{case.path}"]


def test_a_poisoned_delta_comes_again_from_the_server(updating: Site, case: Case) -> None:
    middle = len(case.delta) // 2
    wrong = case.delta[:middle] + bytes([case.delta[middle] ^ 1]) + case.delta[middle + 1 :]
    updating.mirror.bend = lambda path, reply: replace(reply, body=wrong)
    asked, of_server = updating.fetch(case.entry, case.new)
    assert asked == [f"{case.path}?link=good"]
    assert of_server[-1] == case.path
    assert updating.left_alone() == WRONG_S


def test_a_delta_that_is_not_there_is_asked_for_once(updating: Site, case: Case) -> None:
    del updating.registry.files[case.path]
    asked, of_server = updating.fetch(case.entry, case.new)
    assert asked == [f"/blobs/{case.entry.sha256}?link=good"]
    assert len(of_server) == 2


@pytest.mark.parametrize(
    "kept",
    [b"", b"[]", b'{"x": 1}', b"\xff", b'{"URL": {}}', b'{"URL": {"until": "x"}}', b'{"URL": 7}'],
)
def test_health_that_makes_no_sense_is_forgotten(site: Site, kept: bytes) -> None:
    site.health.parent.mkdir()
    site.health.write_bytes(kept.replace(b"URL", site.mirror.url.encode()))
    assert site.again().usable() == [site.mirror.url]


def test_a_clock_set_back_leaves_no_mirror_alone_for_ever(site: Site) -> None:
    site.fetcher.mirrors.failed(site.mirror.url, "dead")
    site.clock.now -= 365 * 86_400
    assert site.again().usable() == [site.mirror.url]


def settings(tmp_path: Path, mirrors: object) -> tuple[str, ...]:
    data = {"server": "http://a", "device": "cam-1", "data_dir": ".", "mirrors": mirrors}
    return parse(data, base=tmp_path).mirrors


def test_mirrors_are_urls_in_order(tmp_path: Path) -> None:
    given = ["http://10.0.0.2:8601/", "https://cache.example/pw", "http://10.0.0.2:8601"]
    assert settings(tmp_path, given) == ("http://10.0.0.2:8601", "https://cache.example/pw")


@pytest.mark.parametrize("bad", ["http://a", ["ftp://a"], ["a"], [7], ["http://a?b"], ["http://"]])
def test_what_is_no_url_is_no_mirror(tmp_path: Path, bad: object) -> None:
    with pytest.raises(BadConfig, match="mirrors"):
        settings(tmp_path, bad)
