"""Get a file by a delta upon one that is here, where the server has such a delta and it pays.

A delta is nothing but a shorter way to a file whose digest is signed: whatever is wrong with it
ends in fetching the whole file, and nobody need be told. What has arrived of it, and what was made
with it, is kept when the line or the power is cut, and gone on with.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from pilotwave_agent.net.download import (
    SYNC_EVERY,
    ComeAgain,
    Downloader,
    Meter,
    Paused,
    broken,
    check_turn,
)
from pilotwave_agent.net.http import BadAnswer, Streamed, Unreachable
from pilotwave_agent.net.mirror_first import Sources
from pilotwave_protocol.delta import HEADER_BYTES, Applier, Header
from pilotwave_protocol.digest import EMPTY_SHA256, hash_file
from pilotwave_protocol.errors import BadDelta, BadName, RefusedError
from pilotwave_protocol.manifest import FileEntry
from pilotwave_protocol.names import check_sha256
from pilotwave_protocol.states import Reason

MIN_SIZE = 2 << 10
WORTH_WAITING = 1 << 20
"""Bytes from which on a file is waited for whose delta is being made."""
LONGEST_WAIT_S = 600.0
PAYS = 0.98
_READ_ONLY = 0o444


class NoDelta(Exception):
    """The server has no delta that is of use here."""


class NotYet(Exception):
    """The server is making it: ask again after so many seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"ask again in {seconds} s")
        self.seconds = seconds


@dataclass
class Deltas:
    """Ways to new files: `bases` names for a new file's digest the old file to begin from.

    `max_memory` bytes is what applying may take above what the agent takes anyway.
    """

    bases: Mapping[str, FileEntry]
    max_memory: int
    wanted: bool = True
    refused: set[str] = field(default_factory=set)

    def fetch(self, d: Downloader, entry: FileEntry, ends: float | None) -> bool:
        """Say whether the file is in the blob store now; if not, it is to be fetched whole.

        Raises `RefusedError` where the line broke, `Paused`, `OSError`.
        """
        files = _Files(d, entry)
        base = self.bases.get(entry.sha256, FileEntry("", 0, EMPTY_SHA256))
        if not self._worth_asking(d, entry, base):
            return False
        sources = d.sources(f"/deltas/{base.sha256}/{entry.sha256}")
        while True:
            try:
                path = self._download(d, entry, sources, files, ends)
                self._apply(d, entry, base, path, files, ends)
            except ComeAgain:
                raise
            except RefusedError as no:
                if not sources.at_fault(no):
                    raise
            except (NoDelta, BadDelta) as e:
                wrong = RefusedError(Reason.BLOB_MISMATCH, f"{entry.path}: a wrong delta")
                again = isinstance(e, BadDelta) and files.wrong() and sources.at_fault(wrong)
                files.drop()
                if not again:
                    self.refused.add(entry.sha256)
                    return False
            else:
                sources.served()
                return True

    def _worth_asking(self, d: Downloader, entry: FileEntry, base: FileEntry) -> bool:
        if not self.wanted or entry.size < MIN_SIZE or entry.sha256 in self.refused:
            return False
        begun = d.disk.size(d.blobs / f"{entry.sha256}.part")
        return not begun and (not base.size or d.disk.size(d.blobs / base.sha256) == base.size)

    # --- fetching

    def _download(
        self, d: Downloader, entry: FileEntry, sources: Sources, files: _Files, ends: float | None
    ) -> Path:
        breaks, patience = 0, d.clock() + LONGEST_WAIT_S
        while True:
            before = files.size
            try:
                self._receive(d, entry, sources, files, ends)
                return files.path
            except NotYet as later:
                self._wait(d, later.seconds, patience, ends)
            except ComeAgain as no:
                d.wait_for_turn(no, ends)
            except (Unreachable, BadAnswer) as e:
                if sources.goes_on(e, came=files.size > before):
                    continue
                breaks += 1
                if breaks >= d.limits.tries or files.size <= before:
                    raise broken(entry, files.size, e) from e

    def _wait(self, d: Downloader, seconds: float, patience: float, ends: float | None) -> None:
        if d.clock() + seconds > patience:
            raise NoDelta
        if ends is not None and d.clock() + seconds >= ends:
            raise Paused
        d.sleep(seconds)

    def _receive(
        self, d: Downloader, entry: FileEntry, sources: Sources, files: _Files, ends: float | None
    ) -> None:
        headers = {}
        if files.size:
            headers["Range"] = f"bytes={files.size}-"
            headers["If-Range"] = f'"{files.tag}"'
        deadline_s = entry.size / d.limits.least_rate + d.limits.window_s
        with sources.open(headers, deadline_s=deadline_s) as answer:
            if answer.status == 416 and files.size:
                return  # it was whole already: the proof comes with applying
            total = self._judge(d, entry, files, answer)
            with _appending(d, files.path) as fd:
                self._copy(d, entry, answer, fd, total, ends)

    def _judge(self, d: Downloader, entry: FileEntry, files: _Files, answer: Streamed) -> int:
        """Check an answer before a byte of it is kept; return the delta's size."""
        check_turn(entry, answer)  # the whole file would only keep a busy server longer
        tag = answer.headers.get("etag", "").strip('"')
        if answer.status == 206 and tag == files.tag:
            start = files.size
        elif answer.status == 200:
            files.begin(tag)
            start = 0
        else:
            raise _no(answer, entry)
        if answer.length is None or start + answer.length > PAYS * entry.size:
            raise NoDelta
        total = start + answer.length
        if answer.status == 206:
            expected = f"bytes {start}-{total - 1}/{total}"
            if answer.headers.get("content-range") != expected:
                raise NoDelta
        needed = answer.length + entry.size + d.limits.keep_free_bytes
        if d.disk.free_bytes(d.blobs) < needed:
            raise NoDelta  # there may still be room for the whole file alone
        return total

    def _copy(
        self,
        d: Downloader,
        entry: FileEntry,
        answer: Streamed,
        fd: int,
        total: int,
        ends: float | None,
    ) -> None:
        meter = Meter(d.limits, d.clock, d.sleep)
        unsynced, left = 0, answer.length or 0
        while left:
            chunk = answer.read(min(left, d.limits.piece))
            if not chunk:
                return
            d.disk.write(fd, chunk)
            left -= len(chunk)
            unsynced += len(chunk)
            if unsynced >= SYNC_EVERY:
                d.disk.sync_fd(fd)
                unsynced = 0
            d.progress(len(chunk) * entry.size // max(total, 1))
            if ends is not None and d.clock() >= ends:
                raise Paused
            meter.took(len(chunk), entry.path)

    # --- applying

    def _apply(
        self,
        d: Downloader,
        entry: FileEntry,
        base: FileEntry,
        path: Path,
        files: _Files,
        ends: float | None,
    ) -> None:
        out = files.made
        kept = out.open("rb") if d.disk.size(out) else None
        with path.open("rb") as delta, _opened(d, base) as old, _appending(d, out) as fd:
            _check(delta, entry, base)
            unsynced = 0

            def write(piece: bytes) -> None:
                nonlocal unsynced
                d.disk.write(fd, piece)
                unsynced += len(piece)
                if unsynced >= SYNC_EVERY:
                    d.disk.sync_fd(fd)
                    unsynced = 0
                if ends is not None and d.clock() >= ends:
                    raise Paused

            applier = Applier(
                delta,
                old,
                write,
                max_memory=self.max_memory,
                kept=kept,
                truncate=lambda size: d.disk.truncate(out, size),
            )
            try:
                applier.run()
            finally:
                if kept:
                    kept.close()
        d.disk.chmod(out, _READ_ONLY)
        d.disk.move(out, d.blobs / entry.sha256)
        files.drop()


def _no(answer: Streamed, entry: FileEntry) -> NoDelta | NotYet:
    """Say whether a refusal means never, or not yet."""
    seconds = answer.headers.get("retry-after", "")
    if answer.status != 404 or entry.size < WORTH_WAITING or not seconds.isdecimal():
        return NoDelta()
    return NotYet(min(max(float(seconds[:6]), 1.0), LONGEST_WAIT_S))


def _check(delta: BinaryIO, entry: FileEntry, base: FileEntry) -> None:
    """Check that a delta is for these two files, whose digests are signed."""
    header = Header.parse(delta.read(HEADER_BYTES))
    found = (header.old_sha256, header.old_size, header.new_sha256, header.new_size)
    if found != (base.sha256, base.size, entry.sha256, entry.size):
        raise BadDelta(f"{entry.path}: the source sent a delta between other files")
    delta.seek(0)


@contextmanager
def _opened(d: Downloader, base: FileEntry) -> Iterator[BinaryIO]:
    if not base.size:
        yield io.BytesIO()
        return
    with (d.blobs / base.sha256).open("rb") as stream:
        yield stream


@contextmanager
def _appending(d: Downloader, path: Path) -> Iterator[int]:
    fd = d.disk.open_append(path)
    try:
        yield fd
    except OSError:
        # the room that is left belongs to everyone else on this device
        d.disk.unlink(path)
        raise
    finally:
        d.disk.sync_fd(fd)
        os.close(fd)


class _Files:
    """What is on disk on the way to one file: `<sha256>.<tag>.delta` and `<sha256>.made`."""

    def __init__(self, d: Downloader, entry: FileEntry) -> None:
        self._d, self._sha256 = d, entry.sha256
        self.made = d.blobs / f"{entry.sha256}.made"
        found = [n for n in d.disk.names(d.blobs) if n.startswith(f"{entry.sha256}.")]
        tags = [n.split(".")[1] for n in found if n.endswith(".delta") and n.count(".") == 2]
        self.tag = tags[0] if tags else ""

    @property
    def path(self) -> Path:
        return self._d.blobs / f"{self._sha256}.{self.tag}.delta"

    @property
    def size(self) -> int:
        """How much of the delta has arrived."""
        return (self._d.disk.size(self.path) or 0) if self.tag else 0

    def begin(self, tag: str) -> None:
        """Begin with the delta of this tag; what is there of another is removed."""
        self.drop()
        try:
            self.tag = check_sha256(tag)
        except BadName:
            raise NoDelta from None

    def wrong(self) -> bool:
        """Say whether the delta is another than its tag says."""
        return hash_file(self.path)[0] != self.tag

    def drop(self) -> None:
        """Remove all that is there."""
        if self.tag:
            self._d.disk.unlink(self.path)
        self._d.disk.unlink(self.made)
