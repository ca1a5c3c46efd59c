"""Fetch blobs: resumable, bounded in size, rate and time, believed only by their digest.

What a blob weighs is known from the signed manifest, never from the server. What has arrived stays
in `<sha256>.part` when the line breaks, and is hashed again before more is added; bytes that turn
out wrong are removed. A finished blob is on disk under its digest, read-only.
"""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pilotwave_agent.host.disk import Disk
from pilotwave_agent.net.http import BadAnswer, Channel, Streamed, TooSlow, Unreachable
from pilotwave_agent.net.mirror_first import Sources
from pilotwave_agent.net.mirrors import Mirrors
from pilotwave_agent.net.server_api import retry_after
from pilotwave_protocol.digest import CHUNK
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.manifest import FileEntry
from pilotwave_protocol.states import Reason

if TYPE_CHECKING:
    from hashlib import _Hash

MB = 1 << 20
SYNC_EVERY = 16 * MB
BURST_S = 0.25
DEFAULT_AFTER_S = 5.0
PATIENCE_S = 60.0
"""So long in all a process waits for its turn; starting another one costs more than that."""


class ComeAgain(RefusedError):
    """The source is busy: it asks to come again in `after_s` seconds."""

    def __init__(self, reason: Reason, sentence: str, after_s: float) -> None:
        super().__init__(reason, sentence)
        self.after_s = after_s


class Paused(Exception):
    """The time given is used up; what has arrived is kept."""


@dataclass(frozen=True)
class Limits:
    """What a download may take.

    `keep_free_bytes` stay free on the disk; `max_rate` (bytes per second, 0: no cap) spares the
    line; below `min_rate` bytes per second, measured over `window_s`, a source is given up.
    """

    keep_free_bytes: int = 64 * MB
    max_rate: int = 0
    min_rate: int = 256
    window_s: float = 60.0
    tries: int = 3  # immediate ones after a break, as long as each brings something

    @property
    def least_rate(self) -> float:
        """`min_rate`, or half of a cap that is lower."""
        return min(self.min_rate, self.max_rate / 2) if self.max_rate else self.min_rate

    @property
    def piece(self) -> int:
        """How many bytes to read at a time, so that a cap is held smoothly, and little of it is
        lost when the process ends."""
        return min(max(self.max_rate // 8, 1024), 1 << 16) if self.max_rate else 1 << 16


@dataclass
class _Part:
    """What has arrived of one blob."""

    path: Path
    size: int = 0
    hasher: _Hash = field(default_factory=hashlib.sha256)
    resumed: bool = False


@dataclass
class Downloader:
    """Fetches the blobs of one data folder with one device's token, from mirrors where there are
    any."""

    disk: Disk
    blobs: Path
    channel: Channel
    token: str
    limits: Limits = field(default_factory=Limits)
    progress: Callable[[int], None] = lambda received: None
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    chance: random.Random = field(default_factory=random.Random)
    waited_s: float = 0.0
    shortcut: Callable[[Downloader, FileEntry, float | None], bool] = lambda d, e, ends: False
    mirrors: Mirrors = field(default_factory=Mirrors)

    def sources(self, path: str) -> Sources:
        """Return the ways to what the server has at `path`."""
        return Sources(self.channel, self.token, path, self.mirrors)

    def fetch(self, entries: Iterable[FileEntry], *, budget_s: float | None = None) -> None:
        """See all of these files in the blob store.

        Raises `RefusedError` with the reason of the first that cannot be had, `Paused` when
        `budget_s` seconds are over, `OSError` from the disk.
        """
        ends = None if budget_s is None else self.clock() + budget_s
        wanted = {entry.sha256: entry for entry in entries}
        missing = [e for e in wanted.values() if self.disk.size(self.blobs / e.sha256) != e.size]
        if not missing:
            return
        self.disk.make_dirs(self.blobs)
        self._check_space(missing)
        for entry in missing:
            if not self.shortcut(self, entry, ends):
                self._fetch_one(entry, ends)

    def _check_space(self, missing: list[FileEntry]) -> None:
        # what a part has reserved is gone from the free space already
        still = (max(e.size - self.disk.allocated(self._part_path(e)), 0) for e in missing)
        needed = sum(still) + self.limits.keep_free_bytes
        free = self.disk.free_bytes(self.blobs)
        if free < needed:
            sentence = f"Disk full: {_mb(free)} free; {_mb(sum(still))} to fetch, and "
            sentence += f"{_mb(self.limits.keep_free_bytes)} must stay free"
            raise RefusedError(Reason.DISK_FULL, sentence)

    def _part_path(self, entry: FileEntry) -> Path:
        return self.blobs / f"{entry.sha256}.part"

    def _fetch_one(self, entry: FileEntry, ends: float | None) -> None:
        breaks = 0
        sources = self.sources(f"/blobs/{entry.sha256}")
        while True:
            part = self._reopened(entry)
            before = part.size
            try:
                if part.size < entry.size:
                    self._receive(entry, part, sources, ends)
                self._finish(entry, part)
                return sources.served()
            except ComeAgain as no:
                self.wait_for_turn(no, ends)
            except RefusedError as no:
                # a part from before may have been torn by a power cut: that is nobody's attack
                if no.reason is Reason.BLOB_MISMATCH and part.resumed and breaks < self._tries:
                    breaks = self._tries
                    continue
                if sources.at_fault(no):
                    continue
                raise
            except (Unreachable, BadAnswer) as e:
                if sources.goes_on(e, came=part.size > before):
                    continue
                breaks += 1
                if breaks >= self._tries or part.size == before:
                    raise broken(entry, part.size, e) from e

    def wait_for_turn(self, no: ComeAgain, ends: float | None) -> None:
        """Wait as long as a busy server asked for, and a little more by chance; raise `no` where
        that is long, so that this process need not stay for it."""
        wait_s = no.after_s * self.chance.uniform(1.0, 1.5)
        if self.waited_s + wait_s > PATIENCE_S:
            raise no
        left = float("inf") if ends is None else max(ends - self.clock(), 0.0)
        self.sleep(min(wait_s, left))
        if wait_s >= left:
            raise Paused
        self.waited_s += wait_s
        self.progress(0)

    @property
    def _tries(self) -> int:
        return self.limits.tries

    def _reopened(self, entry: FileEntry) -> _Part:
        part = _Part(self._part_path(entry))
        size = self.disk.size(part.path)
        if size is None:
            return part
        if size > entry.size:
            self.disk.unlink(part.path)
            return part
        with part.path.open("rb") as stream:
            while chunk := stream.read(CHUNK):
                part.hasher.update(chunk)
                part.size += len(chunk)
        part.resumed = part.size > 0
        return part

    def _receive(self, entry: FileEntry, part: _Part, sources: Sources, ends: float | None) -> None:
        headers = {}
        if part.size:
            headers["Range"] = f"bytes={part.size}-"
            headers["If-Range"] = f'"{entry.sha256}"'
        deadline_s = (entry.size - part.size) / self.limits.least_rate + self.limits.window_s
        with sources.open(headers, deadline_s=deadline_s) as answer:
            self._judge(entry, part, answer)
            fd = self.disk.open_append(part.path)
            try:
                self._copy(entry, part, answer, fd, ends)
            except OSError:
                # the room that is left belongs to everyone else on this device
                self.disk.unlink(part.path)
                raise
            finally:
                os.close(fd)

    def _judge(self, entry: FileEntry, part: _Part, answer: Streamed) -> None:
        """Check an answer's status and length before a byte of it is kept."""
        name = entry.path
        if answer.status == 206 and part.size:
            start = f"bytes {part.size}-{entry.size - 1}/{entry.size}"
            if answer.headers.get("content-range") != start:
                self.disk.unlink(part.path)
                sentence = f"{name}: asked to go on at {part.size}, the source offers another part"
                raise RefusedError(Reason.BLOB_MISMATCH, sentence)
        elif answer.status == 200:
            if part.size:
                self.disk.truncate(part.path, 0)
                part.size, part.hasher, part.resumed = 0, hashlib.sha256(), False
        else:
            self._refuse(entry, part, answer)
        if answer.length is not None and answer.length != entry.size - part.size:
            self.disk.unlink(part.path)
            long = answer.length > entry.size - part.size
            total = part.size + answer.length
            sentence = f"{name}: expected {entry.size} bytes; the source offers {total}"
            raise RefusedError(Reason.BLOB_TOO_LONG if long else Reason.BLOB_TRUNCATED, sentence)

    def _refuse(self, entry: FileEntry, part: _Part, answer: Streamed) -> None:
        status = answer.status
        check_turn(entry, answer)
        if status == 416:
            self.disk.unlink(part.path)
            sentence = f"{entry.path}: the source has no more than {part.size} bytes of it"
            raise RefusedError(Reason.BLOB_TRUNCATED, sentence)
        reason = {
            401: Reason.BLOB_DENIED,
            403: Reason.BLOB_DENIED,
            404: Reason.BLOB_MISSING,
            410: Reason.BLOB_MISSING,
        }.get(status, Reason.BLOB_UNAVAILABLE)
        raise RefusedError(reason, f"{entry.path}: the source answered with status {status}")

    def _copy(
        self, entry: FileEntry, part: _Part, answer: Streamed, fd: int, ends: float | None
    ) -> None:
        self.disk.reserve(fd, entry.size)
        meter = Meter(self.limits, self.clock, self.sleep)
        unsynced = 0
        while chunk := answer.read(self.limits.piece):
            if part.size + len(chunk) > entry.size:
                self.disk.unlink(part.path)
                sentence = f"{entry.path}: expected {entry.size} bytes; more came"
                raise RefusedError(Reason.BLOB_TOO_LONG, sentence)
            self.disk.write(fd, chunk)
            part.hasher.update(chunk)
            part.size += len(chunk)
            unsynced += len(chunk)
            if unsynced >= SYNC_EVERY:
                self.disk.sync_fd(fd)
                unsynced = 0
            self.progress(len(chunk))
            if ends is not None and self.clock() >= ends:
                raise Paused
            meter.took(len(chunk), entry.path)
        if part.size < entry.size:
            self.disk.unlink(part.path)
            sentence = f"{entry.path}: expected {entry.size} bytes; {part.size} came"
            raise RefusedError(Reason.BLOB_TRUNCATED, sentence)

    def _finish(self, entry: FileEntry, part: _Part) -> None:
        if part.size == 0 and self.disk.size(part.path) is None:
            self.disk.append(part.path, b"")  # an empty file is a file too
        if part.hasher.hexdigest() != entry.sha256:
            self.disk.unlink(part.path)
            sentence = f"{entry.path}: the bytes that came are not the ones that were signed"
            raise RefusedError(Reason.BLOB_MISMATCH, sentence)
        # all of it may have come before a pause or a crash, and none of it be on disk
        self.disk.sync_bytes(part.path)
        self.disk.chmod(part.path, 0o444)
        self.disk.move(part.path, self.blobs / entry.sha256)


class Meter:
    """Hold a download between its highest and its lowest rate."""

    def __init__(
        self, limits: Limits, clock: Callable[[], float], sleep: Callable[[float], None]
    ) -> None:
        self._limits, self._clock, self._sleep = limits, clock, sleep
        self._since = self._used_up = clock()
        self._in_window = 0

    def took(self, count: int, name: str) -> None:
        """Count bytes: wait if they came too fast, give up if they come too slowly."""
        self._in_window += count
        if self._limits.max_rate:
            # a token bucket: what a slow line did not use is lost, but for a moment's worth
            now = self._clock()
            begin = max(self._used_up, now - BURST_S)
            self._used_up = begin + count / self._limits.max_rate
            if self._used_up > now:
                self._sleep(self._used_up - now)
        elapsed = self._clock() - self._since
        if elapsed < self._limits.window_s:
            return
        if self._in_window < self._limits.least_rate * elapsed:
            rate = self._in_window / elapsed
            sentence = f"{name}: {rate:.0f} bytes per second, under {self._limits.least_rate:.0f}"
            raise RefusedError(Reason.SLOW_RETRIEVAL, sentence)
        self._since, self._in_window = self._clock(), 0


def check_turn(entry: FileEntry, answer: Streamed) -> None:
    """Raise `ComeAgain` where a server is too busy to send the file now."""
    if answer.status in (429, 503):
        said = answer.headers.get("retry-after", "")
        after_s = retry_after(said)
        after_s = DEFAULT_AFTER_S if after_s is None else after_s
        sentence = f"{entry.path}: the source is busy, and asks to come again in {after_s:.0f} s"
        raise ComeAgain(Reason.BLOB_UNAVAILABLE, sentence, after_s)


def broken(entry: FileEntry, came: int, e: Unreachable | BadAnswer) -> RefusedError:
    """Say that the line broke, and how far the file had come."""
    slow = isinstance(e, TooSlow)
    sentence = f"{entry.path}: {e}, after {came} of {entry.size} bytes"
    return RefusedError(Reason.SLOW_RETRIEVAL if slow else Reason.BLOB_UNAVAILABLE, sentence)


def missing_bytes(disk: Disk, blobs: Path, entries: Iterable[FileEntry]) -> int:
    """Return how many bytes of these files are still to come."""
    total = 0
    for entry in {e.sha256: e for e in entries}.values():
        if disk.size(blobs / entry.sha256) != entry.size:
            part = disk.size(blobs / f"{entry.sha256}.part") or 0
            total += max(entry.size - part, 0)
    return total


def _mb(count: int) -> str:
    return f"{count / MB:.1f} MB"
