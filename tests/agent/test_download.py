"""Fetching blobs from sources that break off, lie, stall or drown the device."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pilotwave_agent.host.disk import Disk
from pilotwave_agent.net.download import (
    ComeAgain,
    Downloader,
    Limits,
    Meter,
    Paused,
)
from pilotwave_agent.net.http import Channel
from pilotwave_agent.net.whole_file import missing_bytes
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.manifest import FileEntry
from pilotwave_protocol.states import Reason
from tests.peers.registry import Registry, Reply

DATA = os.urandom(300_000)
DIGEST = sha256_hex(DATA)
ENTRY = FileEntry("model.onnx", len(DATA), DIGEST)


@pytest.fixture
def blobs(tmp_path: Path) -> Path:
    return tmp_path / "blobs"


@pytest.fixture
def fetcher(registry: Registry, blobs: Path) -> Iterator[Downloader]:
    registry.files[f"/blobs/{DIGEST}"] = DATA
    channel = Channel(registry.url, gap_s=1.0)
    yield Downloader(Disk(), blobs, channel, "token", Limits(keep_free_bytes=0))
    channel.close()


def bend(registry: Registry, change: Callable[[Reply], Reply], times: int = 10**9) -> None:
    """Bend the next answers to requests for blobs."""
    left = [times]

    def bent(path: str, reply: Reply) -> Reply:
        if path.startswith("/blobs/") and left[0] > 0:
            left[0] -= 1
            return change(reply)
        return reply

    registry.bend = bent


def refusal(fetcher: Downloader, *entries: FileEntry) -> Reason:
    with pytest.raises(RefusedError) as no:
        fetcher.fetch(entries or (ENTRY,))
    return no.value.reason


def test_a_blob_arrives_whole_and_read_only(fetcher: Downloader, blobs: Path) -> None:
    fetcher.fetch([ENTRY])
    assert (blobs / DIGEST).read_bytes() == DATA
    assert (blobs / DIGEST).stat().st_mode & 0o222 == 0
    assert os.listdir(blobs) == [DIGEST]


def test_what_is_there_is_not_fetched_again(registry: Registry, fetcher: Downloader) -> None:
    fetcher.fetch([ENTRY])
    asked = len(registry.requests)
    fetcher.fetch([ENTRY, replace(ENTRY, path="twice.onnx")])
    assert len(registry.requests) == asked


def test_an_empty_file_is_a_file_too(registry: Registry, fetcher: Downloader, blobs: Path) -> None:
    empty = FileEntry("labels.txt", 0, sha256_hex(b""))
    fetcher.fetch([empty])
    assert (blobs / empty.sha256).read_bytes() == b""


def test_a_broken_line_is_taken_up_where_it_broke(
    registry: Registry, fetcher: Downloader, blobs: Path
) -> None:
    bend(registry, lambda r: replace(r, cut=100_000), times=1)
    sent: list[str] = []
    answer = registry._blob
    registry._blob = lambda path, headers: (  # type: ignore[method-assign]  # a spy
        sent.append(headers.get("Range", "")) or answer(path, headers)
    )
    fetcher.fetch([ENTRY])
    assert sent == ["", "bytes=100000-"]
    assert (blobs / DIGEST).read_bytes() == DATA


def test_a_part_survives_the_process(fetcher: Downloader, registry: Registry, blobs: Path) -> None:
    bend(registry, lambda r: replace(r, cut=40_000))
    fetcher.limits = replace(fetcher.limits, tries=1)
    assert refusal(fetcher) is Reason.BLOB_UNAVAILABLE
    assert (blobs / f"{DIGEST}.part").read_bytes() == DATA[:40_000]
    assert missing_bytes(Disk(), blobs, [ENTRY]) == len(DATA) - 40_000
    registry.bend = lambda path, reply: reply
    fetcher.fetch([ENTRY])
    assert (blobs / DIGEST).read_bytes() == DATA


def test_a_part_torn_by_a_power_cut_is_begun_anew(fetcher: Downloader, blobs: Path) -> None:
    blobs.mkdir()
    (blobs / f"{DIGEST}.part").write_bytes(DATA[:50_000] + b"\0" * 1000)
    fetcher.fetch([ENTRY])
    assert (blobs / DIGEST).read_bytes() == DATA


def test_a_part_longer_than_the_blob_is_begun_anew(fetcher: Downloader, blobs: Path) -> None:
    blobs.mkdir()
    (blobs / f"{DIGEST}.part").write_bytes(DATA + b"more")
    fetcher.fetch([ENTRY])
    assert (blobs / DIGEST).read_bytes() == DATA


def test_a_complete_part_needs_no_request(
    registry: Registry, fetcher: Downloader, blobs: Path
) -> None:
    blobs.mkdir()
    (blobs / f"{DIGEST}.part").write_bytes(DATA)
    fetcher.fetch([ENTRY])
    assert not [r for r in registry.requests if "/blobs/" in r]


def test_a_source_that_ignores_ranges_starts_over(
    registry: Registry, fetcher: Downloader, blobs: Path
) -> None:
    blobs.mkdir()
    (blobs / f"{DIGEST}.part").write_bytes(DATA[:1000])
    bend(registry, lambda r: Reply(200, DATA))
    fetcher.fetch([ENTRY])
    assert (blobs / DIGEST).read_bytes() == DATA


def flipped(reply: Reply) -> Reply:
    body = bytearray(reply.body)
    body[len(body) // 2] ^= 1
    return replace(reply, body=bytes(body))


# what a source does, and the reason that the device gives
LIES: list[tuple[str, Callable[[Reply], Reply], Reason]] = [
    ("tampered", flipped, Reason.BLOB_MISMATCH),
    ("other file", lambda r: replace(r, body=os.urandom(len(DATA))), Reason.BLOB_MISMATCH),
    ("truncated", lambda r: replace(r, body=DATA[:1000]), Reason.BLOB_TRUNCATED),
    ("too long", lambda r: replace(r, body=DATA + b"x"), Reason.BLOB_TOO_LONG),
    ("absent", lambda r: Reply(404), Reason.BLOB_MISSING),
    ("not allowed", lambda r: Reply(403), Reason.BLOB_DENIED),
    ("token ended", lambda r: Reply(401), Reason.BLOB_DENIED),
    ("broken server", lambda r: Reply(500), Reason.BLOB_UNAVAILABLE),
    (
        "redirect",
        lambda r: Reply(302, headers={"Location": "http://127.0.0.1:1/"}),
        Reason.BLOB_UNAVAILABLE,
    ),
    (
        "compressed",
        lambda r: replace(r, headers={"Content-Encoding": "gzip"}),
        Reason.BLOB_UNAVAILABLE,
    ),
    (
        "another range",
        lambda r: replace(r, status=206, headers={"Content-Range": "bytes 5-9/10"}),
        Reason.BLOB_UNAVAILABLE,
    ),
]


@pytest.mark.parametrize(
    ("change", "reason"), [row[1:] for row in LIES], ids=[row[0] for row in LIES]
)
def test_a_lying_source_is_refused_and_nothing_of_it_kept(
    registry: Registry,
    fetcher: Downloader,
    blobs: Path,
    change: Callable[[Reply], Reply],
    reason: Reason,
) -> None:
    bend(registry, change)
    assert refusal(fetcher) is reason
    assert os.listdir(blobs) == []


def test_a_resumed_part_from_a_wrong_offset_is_refused(
    registry: Registry, fetcher: Downloader, blobs: Path
) -> None:
    blobs.mkdir()
    (blobs / f"{DIGEST}.part").write_bytes(DATA[:1000])
    wrong = {"Content-Range": f"bytes 0-{len(DATA) - 1}/{len(DATA)}"}
    bend(registry, lambda r: Reply(206, DATA, wrong))
    assert refusal(fetcher) is Reason.BLOB_UNAVAILABLE


def test_endless_data_is_cut_off_at_the_signed_length(
    registry: Registry, fetcher: Downloader, blobs: Path
) -> None:
    chunked = {"Transfer-Encoding": "chunked"}
    endless = b"".join(b"10000\r\n" + os.urandom(65536) + b"\r\n" for _ in range(100))
    bend(registry, lambda r: Reply(200, endless, chunked, declared=-1))
    assert refusal(fetcher) is Reason.BLOB_TOO_LONG
    assert os.listdir(blobs) == []


def test_a_body_that_ends_early_without_a_length_is_truncated(
    registry: Registry, fetcher: Downloader, blobs: Path
) -> None:
    chunked = {"Transfer-Encoding": "chunked"}
    short = b"3e8\r\n" + DATA[:1000] + b"\r\n0\r\n\r\n"
    bend(registry, lambda r: Reply(200, short, chunked, declared=-1))
    assert refusal(fetcher) is Reason.BLOB_TRUNCATED
    assert os.listdir(blobs) == []


def test_a_source_that_drips_is_given_up_and_taken_up_again(
    registry: Registry, fetcher: Downloader, blobs: Path
) -> None:
    fetcher.limits = replace(fetcher.limits, min_rate=100_000, window_s=0.4)
    bend(registry, lambda r: replace(r, stall=0.05, piece=100))
    assert refusal(fetcher) is Reason.SLOW_RETRIEVAL
    part = (blobs / f"{DIGEST}.part").read_bytes()
    assert part
    assert DATA.startswith(part)
    registry.bend = lambda path, reply: reply
    fetcher.fetch([ENTRY])
    assert (blobs / DIGEST).read_bytes() == DATA


def test_a_source_that_stalls_is_given_up(registry: Registry, fetcher: Downloader) -> None:
    fetcher.channel = Channel(registry.url, gap_s=0.2)
    bend(registry, lambda r: replace(r, stall=1.0))
    assert refusal(fetcher) is Reason.SLOW_RETRIEVAL


def test_the_line_is_spared(fetcher: Downloader) -> None:
    clock, slept = [0.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock[0] += seconds

    fetcher.clock, fetcher.sleep = lambda: clock[0], sleep
    fetcher.limits = replace(fetcher.limits, max_rate=100_000)
    fetcher.fetch([ENTRY])
    assert clock[0] == pytest.approx(len(DATA) / 100_000)


def test_what_a_slow_line_did_not_use_is_no_credit(fetcher: Downloader) -> None:
    clock = [0.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    meter = Meter(Limits(max_rate=100_000), lambda: clock[0], sleep)
    meter.took(1000, "x")
    clock[0] = 50.0  # the line stood still
    for _ in range(100):
        meter.took(10_000, "x")
    assert clock[0] - 50 == pytest.approx(10, abs=0.3)


def test_a_cap_below_the_least_rate_is_no_slow_source(fetcher: Downloader) -> None:
    clock = [0.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    fetcher.clock, fetcher.sleep = lambda: clock[0], sleep
    fetcher.limits = replace(fetcher.limits, max_rate=125)
    fetcher.fetch([ENTRY])
    assert clock[0] == pytest.approx(len(DATA) / 125)


def busy(after: str) -> Reply:
    return Reply(503, b"{}", {"Retry-After": after})


def test_a_busy_source_is_asked_again_when_it_said_and_a_little_later(
    registry: Registry, fetcher: Downloader, blobs: Path
) -> None:
    slept: list[float] = []
    fetcher.sleep = slept.append
    bend(registry, lambda r: busy("4"), times=8)
    fetcher.fetch([ENTRY])
    assert (blobs / DIGEST).read_bytes() == DATA
    assert len(slept) == 8
    assert all(4 <= wait <= 6 for wait in slept)
    assert len(set(slept)) == 8


@pytest.mark.parametrize(("said", "after_s"), [("3000", 3000), ("99999999", 3600)])
def test_no_process_waits_for_long(
    registry: Registry, fetcher: Downloader, said: str, after_s: float
) -> None:
    fetcher.sleep = lambda seconds: pytest.fail("it slept")
    bend(registry, lambda r: busy(said))
    with pytest.raises(ComeAgain) as no:
        fetcher.fetch([ENTRY])
    assert (no.value.reason, no.value.after_s) == (Reason.BLOB_UNAVAILABLE, after_s)


@pytest.mark.parametrize("said", ["", "soon", "-1", "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_a_busy_source_that_names_no_time_is_waited_for_within_patience(
    registry: Registry, fetcher: Downloader, said: str
) -> None:
    slept: list[float] = []
    fetcher.sleep = slept.append
    bend(registry, lambda r: busy(said))
    assert refusal(fetcher) is Reason.BLOB_UNAVAILABLE
    assert 50 < sum(slept) <= 60


def test_waiting_for_a_turn_keeps_to_the_budget(registry: Registry, fetcher: Downloader) -> None:
    clock = [0.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    fetcher.clock, fetcher.sleep = lambda: clock[0], sleep
    bend(registry, lambda r: busy("4"))
    with pytest.raises(Paused):
        fetcher.fetch([ENTRY], budget_s=3)
    assert clock[0] == pytest.approx(3)


def test_a_budget_pauses_and_the_next_one_goes_on(
    registry: Registry, fetcher: Downloader, blobs: Path
) -> None:
    bend(registry, lambda r: replace(r, stall=0.02, piece=20_000))
    pauses = 0
    while pauses < 100:
        try:
            fetcher.fetch([ENTRY], budget_s=0.1)
            break
        except Paused:
            pauses += 1
    assert pauses > 0
    assert (blobs / DIGEST).read_bytes() == DATA


class SmallDisk(Disk):
    """A disk that says how much is free, and what becomes of writes."""

    def __init__(self, free: int, error: int | None = None) -> None:
        self.free, self.error = free, error

    def free_bytes(self, path: Path) -> int:
        return self.free

    def reserve(self, fd: int, size: int) -> None:
        if self.error:
            raise OSError(self.error, os.strerror(self.error))


def test_no_byte_is_asked_for_where_there_is_no_room(
    registry: Registry, fetcher: Downloader, blobs: Path
) -> None:
    fetcher.disk = SmallDisk(free=1_000_000)
    fetcher.limits = replace(fetcher.limits, keep_free_bytes=900_000)
    assert refusal(fetcher) is Reason.DISK_FULL
    assert not [r for r in registry.requests if "/blobs/" in r]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_says_no_gets_its_room_back(
    fetcher: Downloader, blobs: Path, number: int
) -> None:
    fetcher.disk = SmallDisk(10**9, number)
    with pytest.raises(OSError, match=os.strerror(number)):
        fetcher.fetch([ENTRY])
    assert os.listdir(blobs) == []


def test_a_server_that_is_gone_is_no_lie(registry: Registry, fetcher: Downloader) -> None:
    registry.stop()
    assert refusal(fetcher) is Reason.BLOB_UNAVAILABLE
    registry.come_back()


def test_progress_is_told(fetcher: Downloader) -> None:
    came: list[int] = []
    fetcher.progress = came.append
    fetcher.fetch([ENTRY])
    assert sum(came) == len(DATA)
