"""Getting files by deltas: cut off, lied to, out of date; at worst the whole file comes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pilotwave_agent.host.disk import Disk
from pilotwave_agent.net import deltas
from pilotwave_agent.net.deltas import Deltas
from pilotwave_agent.net.download import Downloader, Limits, Paused
from pilotwave_agent.net.http import Channel, Streamed
from pilotwave_protocol.digest import EMPTY_SHA256, sha256_hex
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.manifest import FileEntry
from tests.deltas.pairs import made, tuned, weights
from tests.peers.registry import Registry, Reply


class Case:
    """An old file that is here, a new one that is wanted, and the delta between them."""

    def __init__(self, folder: Path, count: int = 150_000) -> None:
        old = weights(count, 1, "float16")
        self.old, self.new = old.tobytes(), tuned(old, 2, 1e-4).tobytes()
        _, self.delta = made(folder, self.old, self.new)
        self.base = FileEntry("m.bin", len(self.old), sha256_hex(self.old))
        self.entry = FileEntry("m.bin", len(self.new), sha256_hex(self.new))
        self.path = f"/deltas/{self.base.sha256}/{self.entry.sha256}"


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(tmp_path_factory.mktemp("pair"))


@pytest.fixture
def blobs(tmp_path: Path, case: Case) -> Path:
    folder = tmp_path / "blobs"
    folder.mkdir()
    (folder / case.base.sha256).write_bytes(case.old)
    return folder


@pytest.fixture
def fetcher(registry: Registry, blobs: Path, case: Case) -> Iterator[Downloader]:
    registry.files[case.path] = case.delta
    registry.files[f"/blobs/{case.entry.sha256}"] = case.new
    channel = Channel(registry.url, gap_s=2.0)
    found = Downloader(Disk(), blobs, channel, "token", Limits(keep_free_bytes=0))
    yield by_delta(found, case)
    channel.close()


def by_delta(fetcher: Downloader, case: Case, **given: bool) -> Downloader:
    shortcut = Deltas({case.entry.sha256: case.base}, 128 << 20, **given)
    return replace(fetcher, shortcut=shortcut.way)


def fetched(fetcher: Downloader, case: Case, registry: Registry) -> list[str]:
    """Fetch, check that exactly the right files are there; return what was asked for."""
    before = len(registry.requests)
    fetcher.fetch([case.entry])
    assert (fetcher.blobs / case.entry.sha256).read_bytes() == case.new
    assert fetcher.disk.names(fetcher.blobs) == sorted([case.base.sha256, case.entry.sha256])
    return [r.split("/")[1] for r in registry.requests[before:]]


def test_the_delta_is_all_that_travels(fetcher: Downloader, registry: Registry, case: Case) -> None:
    assert fetched(fetcher, case, registry) == ["deltas"]
    assert (fetcher.blobs / case.entry.sha256).stat().st_mode & 0o222 == 0


def test_a_first_install_takes_the_delta_from_nothing(
    registry: Registry, fetcher: Downloader, case: Case, tmp_path: Path
) -> None:
    _, delta = made(tmp_path, b"", case.new)
    registry.files[f"/deltas/{EMPTY_SHA256}/{case.entry.sha256}"] = delta
    first = replace(fetcher, shortcut=Deltas({}, 128 << 20).way)
    assert fetched(first, case, registry) == ["deltas"]


def test_without_a_delta_the_whole_file_comes(
    fetcher: Downloader, registry: Registry, case: Case
) -> None:
    del registry.files[case.path]
    assert fetched(fetcher, case, registry) == ["deltas", "blobs"]


def test_deltas_may_be_switched_off(fetcher: Downloader, registry: Registry, case: Case) -> None:
    assert fetched(by_delta(fetcher, case, wanted=False), case, registry) == ["blobs"]


class Maker:
    """A server that is still making the delta; it has it after so many questions."""

    def __init__(self, registry: Registry, case: Case, after: int) -> None:
        self.left, self.path = after, case.path
        registry.bend = self.bent

    def bent(self, path: str, reply: Reply) -> Reply:
        if path != self.path or self.left == 0:
            return reply
        self.left -= 1
        return Reply(404, b"{}", {"Retry-After": "20"})


def test_a_delta_that_is_being_made_is_waited_for(
    fetcher: Downloader, registry: Registry, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deltas, "WORTH_WAITING", 1)
    slept: list[float] = []
    Maker(registry, case, after=3)
    assert fetched(replace(fetcher, sleep=slept.append), case, registry) == ["deltas"] * 4
    assert slept == [20, 20, 20]


def test_nobody_waits_for_ever_or_for_a_small_file(
    fetcher: Downloader, registry: Registry, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    Maker(registry, case, after=10**6)
    assert fetched(fetcher, case, registry) == ["deltas", "blobs"]
    (fetcher.blobs / case.entry.sha256).unlink()
    monkeypatch.setattr(deltas, "WORTH_WAITING", 1)
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    patient = by_delta(replace(fetcher, sleep=sleep, clock=lambda: now[0]), case)
    assert fetched(patient, case, registry)[-1] == "blobs"
    assert 500 < now[0] <= deltas.LONGEST_WAIT_S


def test_waiting_ends_with_the_time_that_was_given(
    fetcher: Downloader, registry: Registry, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deltas, "WORTH_WAITING", 1)
    Maker(registry, case, after=10**6)
    with pytest.raises(Paused):
        fetcher.fetch([case.entry], budget_s=10)


WRONG = {
    "noise": lambda c: random.Random(1).randbytes(5000),
    "one bit": lambda c: c.delta[:3000] + bytes((c.delta[3000] ^ 4,)) + c.delta[3001:],
    "cut": lambda c: c.delta[:-10],
    "longer": lambda c: c.delta + b"more",
    "as large as the file": lambda c: c.delta + bytes(len(c.new)),
    "empty": lambda c: b"",
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_delta_ends_in_the_whole_file(
    fetcher: Downloader, registry: Registry, case: Case, name: str
) -> None:
    registry.files[case.path] = WRONG[name](case)
    assert fetched(fetcher, case, registry)[-1] == "blobs"


def test_a_delta_to_another_file_ends_in_the_whole_file(
    fetcher: Downloader, registry: Registry, case: Case, tmp_path: Path
) -> None:
    _, registry.files[case.path] = made(tmp_path, case.old, case.new[:-1] + b"x")
    assert fetched(fetcher, case, registry) == ["deltas", "blobs"]


def test_an_old_file_that_rotted_ends_in_the_whole_file(
    fetcher: Downloader, registry: Registry, case: Case
) -> None:
    rotten = fetcher.blobs / case.base.sha256
    rotten.write_bytes(case.old[:70_000] + b"rot" + case.old[70_003:])
    assert fetched(fetcher, case, registry) == ["deltas", "blobs"]


def test_a_delta_that_wants_too_much_memory_is_not_applied(
    fetcher: Downloader, registry: Registry, case: Case
) -> None:
    small = Deltas({case.entry.sha256: case.base}, 1 << 20)
    assert fetched(replace(fetcher, shortcut=small.way), case, registry)[-1] == "blobs"


class PowerCut(BaseException):
    """Everything stops where it is."""


class FailingDisk(Disk):
    """Stops at a random write, more often at those of whole blocks, or before a move."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance

    def write(self, fd: int, data: bytes | memoryview) -> None:
        if self.chance.random() < (0.3 if len(data) > 1 << 16 else 0.005):
            super().write(fd, memoryview(data)[: len(data) // 2])
            raise PowerCut
        super().write(fd, data)

    def move(self, source: Path, target: Path) -> None:
        if self.chance.random() < 0.3:
            raise PowerCut
        super().move(source, target)


class CountingChannel(Channel):
    """Counts what is read of bodies."""

    received = 0

    @contextmanager
    def stream(self, *words: Any, **given: Any) -> Iterator[Streamed]:
        with super().stream(*words, **given) as answer:
            read = answer.read

            def counted(limit: int = 1 << 16) -> bytes:
                data = read(min(limit, 1024))
                self.received += len(data)
                return data

            answer.read = counted  # type: ignore[method-assign]
            yield answer


def test_cut_two_hundred_times_it_converges_and_fetches_next_to_nothing_twice(
    registry: Registry, fetcher: Downloader, blobs: Path, tmp_path: Path
) -> None:
    """Over a slow line that breaks off, with the power failing between: what came stays."""
    case = Case(tmp_path, 1_200_000)
    (blobs / case.base.sha256).write_bytes(case.old)
    registry.files[case.path] = case.delta
    chance = random.Random(7)

    def bent(path: str, reply: Reply) -> Reply:
        if reply.status in (200, 206):
            reply.piece, reply.stall = 4096, 0.0005
            reply.cut = min(chance.randrange(1, len(case.delta) // 90), len(reply.body))
        return reply

    registry.bend = bent
    channel = CountingChannel(registry.url, gap_s=2.0)
    fetcher = replace(by_delta(fetcher, case), channel=channel)
    cuts = 0
    while True:
        try:
            replace(fetcher, disk=FailingDisk(chance)).fetch([case.entry])
            break
        except (RefusedError, PowerCut):
            cuts += 1
            assert cuts < 2000
    channel.close()
    assert (blobs / case.entry.sha256).read_bytes() == case.new
    breaks = sum(r.startswith("GET /deltas") for r in registry.requests)
    assert breaks + cuts > 200
    assert channel.received < 1.01 * len(case.delta)
    assert not any(r.startswith("GET /blobs") for r in registry.requests)
