"""Fetch blobs: resumable, bounded in size, rate and time, believed only by their digest.

What has arrived stays when the line breaks, and is gone on with. A finished blob is on disk under
its digest, read-only. What is asked for, and how a file is made of it, each `Way` says.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pilotwave_agent.host.disk import Disk, appending
from pilotwave_agent.net.http import BadAnswer, Channel, Streamed, TooSlow, Unreachable
from pilotwave_agent.net.mirror_first import Sources
from pilotwave_agent.net.mirrors import Mirrors
from pilotwave_agent.net.server_api import retry_after
from pilotwave_agent.net.ways import NotYet, NoUse, Way
from pilotwave_agent.net.whole_file import WholeFile, part_of
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.manifest import FileEntry
from pilotwave_protocol.states import Reason

MB = 1 << 20
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
class Downloader:
    """Fetches the blobs of one data folder with one device's token, from mirrors where there are
    any.

    `shortcut` names a way to a file that is tried before the whole file is fetched.
    """

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
    shortcut: Callable[[Disk, Path, FileEntry], Way | None] = lambda disk, blobs, entry: None
    mirrors: Mirrors = field(default_factory=Mirrors)

    def fetch(self, entries: Iterable[FileEntry], *, budget_s: float | None = None) -> None:
        """See all of these files in the blob store.

        Raises `RefusedError` with the reason of the first that cannot be had, `Paused` when
        `budget_s` seconds are over, `OSError` from the disk.
        """
        ends = math.inf if budget_s is None else self.clock() + budget_s
        wanted = {entry.sha256: entry for entry in entries}
        missing = [e for e in wanted.values() if self.disk.size(self.blobs / e.sha256) != e.size]
        if not missing:
            return
        self.disk.make_dirs(self.blobs)
        self._check_space(missing)
        for entry in missing:
            self._fetch_one(entry, ends)

    def _check_space(self, missing: list[FileEntry]) -> None:
        # what a part has reserved is gone from the free space already
        parts = [(e.size, self.disk.allocated(part_of(self.blobs, e))) for e in missing]
        needed = sum(max(size - reserved, 0) for size, reserved in parts)
        free = self.disk.free_bytes(self.blobs)
        if free < needed + self.limits.keep_free_bytes:
            sentence = f"Disk full: {_mb(free)} free; {_mb(needed)} to fetch, and "
            sentence += f"{_mb(self.limits.keep_free_bytes)} must stay free"
            raise RefusedError(Reason.DISK_FULL, sentence)

    def _fetch_one(self, entry: FileEntry, ends: float) -> None:
        short = self.shortcut(self.disk, self.blobs, entry)
        if short is not None:
            with suppress(NoUse):
                return self._follow(short, ends)
        return self._follow(WholeFile(self.disk, self.blobs, entry), ends)

    def _follow(self, way: Way, ends: float) -> None:
        """Ask for what a way needs until it has made the file."""
        sources = Sources(self.channel, self.token, way.path, self.mirrors)
        breaks, forgiven = 0, False
        while True:
            complete, before = way.resume(), way.size
            try:
                if not complete:
                    self._receive(way, sources, ends)
                way.finish(lambda: self._check_time(ends))
                return sources.served()
            except NotYet as later:
                self._check_time(ends - later.seconds)
                self.sleep(later.seconds)
            except ComeAgain as no:
                self._wait_for_turn(no, ends)
            except RefusedError as no:
                # a part from before may have been torn by a power cut: that is nobody's attack
                torn = no.reason is Reason.BLOB_MISMATCH and way.resumed and not forgiven
                if not torn and not sources.at_fault(no):
                    raise
                forgiven = forgiven or torn
            except (Unreachable, BadAnswer) as e:
                if sources.goes_on(e, came=way.size > before):
                    continue
                breaks += 1
                if breaks >= self.limits.tries or way.size == before:
                    raise _broken(way, e) from e

    def _receive(self, way: Way, sources: Sources, ends: float) -> None:
        size, limits, headers = way.size, self.limits, {}
        if size:
            headers = {"Range": f"bytes={size}-", "If-Range": f'"{way.tag}"'}
        deadline_s = (way.entry.size - size) / limits.least_rate + limits.window_s
        with sources.open(headers, deadline_s=deadline_s) as answer:
            _check_turn(way.entry, answer)
            room = self.disk.free_bytes(self.blobs) - limits.keep_free_bytes
            total = way.judge(answer, room)
            if way.size == total:
                return
            with appending(self.disk, way.part, reserve=total) as add:
                self._copy(way, answer, add, total, ends)

    def _copy(
        self, way: Way, answer: Streamed, add: Callable[[bytes], None], total: int, ends: float
    ) -> None:
        meter = Meter(self.limits, self.clock, self.sleep)
        while chunk := answer.read(self.limits.piece):
            way.took(chunk)
            add(chunk)
            self.progress(len(chunk) * way.entry.size // total)
            self._check_time(ends)
            meter.took(len(chunk), way.entry.path)

    def _check_time(self, ends: float) -> None:
        if self.clock() >= ends:
            raise Paused

    def _wait_for_turn(self, no: ComeAgain, ends: float) -> None:
        """Wait as long as a busy server asked for, and a little more by chance; raise `no` where
        that is long, so that this process need not stay for it."""
        wait_s = no.after_s * self.chance.uniform(1.0, 1.5)
        if self.waited_s + wait_s > PATIENCE_S:
            raise no
        left = max(ends - self.clock(), 0.0)
        self.sleep(min(wait_s, left))
        if wait_s >= left:
            raise Paused
        self.waited_s += wait_s
        self.progress(0)


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


def _check_turn(entry: FileEntry, answer: Streamed) -> None:
    """Raise `ComeAgain` where a server is too busy to send the file now."""
    if answer.status in (429, 503):
        said = answer.headers.get("retry-after", "")
        after_s = retry_after(said)
        after_s = DEFAULT_AFTER_S if after_s is None else after_s
        sentence = f"{entry.path}: the source is busy, and asks to come again in {after_s:.0f} s"
        raise ComeAgain(Reason.BLOB_UNAVAILABLE, sentence, after_s)


def _broken(way: Way, e: Unreachable | BadAnswer) -> RefusedError:
    """Say that the line broke, and how far the file had come."""
    slow = isinstance(e, TooSlow)
    sentence = f"{way.entry.path}: {e}, after {way.size} of {way.entry.size} bytes"
    return RefusedError(Reason.SLOW_RETRIEVAL if slow else Reason.BLOB_UNAVAILABLE, sentence)


def _mb(count: int) -> str:
    return f"{count / MB:.1f} MB"
