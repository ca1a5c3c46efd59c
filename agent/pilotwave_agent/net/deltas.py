"""Get a file by a delta upon one that is here, where the server has such a delta and it pays.

A delta is nothing but a shorter way to a file whose digest is signed: whatever is wrong with it
ends in fetching the whole file, and nobody need be told. What has arrived of it, and what was made
with it, is kept when the line or the power is cut, and gone on with.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pilotwave_agent.host.disk import Disk, appending
from pilotwave_agent.net.http import Streamed
from pilotwave_agent.net.ways import NotYet, NoUse
from pilotwave_agent.net.whole_file import part_of
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


class WrongDelta(RefusedError, NoUse):
    """The delta that came is another than its tag says."""


@dataclass(frozen=True)
class Deltas:
    """Ways to new files: `bases` names for a new file's digest the old file to begin from.

    `max_memory` bytes is what applying may take above what the agent takes anyway.
    """

    bases: Mapping[str, FileEntry]
    max_memory: int
    wanted: bool = True

    def way(self, disk: Disk, blobs: Path, entry: FileEntry) -> DeltaWay | None:
        """Return the way to a file by a delta; None if none is worth asking for."""
        base = self.bases.get(entry.sha256, FileEntry("", 0, EMPTY_SHA256))
        if not self.wanted or entry.size < MIN_SIZE or disk.size(part_of(blobs, entry)):
            return None
        if base.size and disk.size(blobs / base.sha256) != base.size:
            return None
        return DeltaWay(disk, blobs, entry, base, self.max_memory)


class DeltaWay:
    """The way by one delta: it arrives in `<sha256>.<tag>.delta`, and makes `<sha256>.made`."""

    def __init__(
        self, disk: Disk, blobs: Path, entry: FileEntry, base: FileEntry, max_memory: int
    ) -> None:
        self._disk, self._blobs, self._max_memory = disk, blobs, max_memory
        self.entry, self._base = entry, base
        self.path = f"/deltas/{base.sha256}/{entry.sha256}"
        self._made = blobs / f"{entry.sha256}.made"
        self._waited_s = 0.0
        found = [n.split(".") for n in disk.names(blobs) if n.startswith(f"{entry.sha256}.")]
        self._begin(next((n[1] for n in found if len(n) == 3 and n[2] == "delta"), ""))

    def _begin(self, tag: str) -> None:
        self.tag, self.size, self.resumed = tag, 0, False
        self.part = self._blobs / f"{self.entry.sha256}.{tag}.delta"

    def resume(self) -> bool:
        """Look at what has arrived before; that it is all, applying alone can say."""
        self.size = self._disk.size(self.part) or 0
        self.resumed = self.size > 0
        return False

    # --- fetching

    def judge(self, answer: Streamed, room: int) -> int:
        """Check an answer; return the delta's size. Raises `NoUse`, `NotYet`."""
        if answer.status == 416 and self.size:
            return self.size  # it was whole already: the proof comes with applying
        tag = answer.headers.get("etag", "").strip('"')
        if answer.status == 200:
            self._begin_anew(tag)
        elif answer.status != 206 or tag != self.tag:
            raise self._no(answer)
        start, length = self.size, answer.length or 0
        total = start + length
        expected = f"bytes {start}-{total - 1}/{total}"
        part = answer.status == 206 and answer.headers.get("content-range") != expected
        # where there is no room for both, there may still be some for the whole file alone
        if part or not length or total > PAYS * self.entry.size or room < length + self.entry.size:
            raise self._no_use()
        return total

    def _begin_anew(self, tag: str) -> None:
        self._drop()
        try:
            self._begin(check_sha256(tag))
        except BadName:
            raise NoUse from None

    def _no(self, answer: Streamed) -> NoUse | NotYet:
        """Say whether a refusal means never, or not yet."""
        answer.read()  # so that the connection can be kept
        seconds = answer.headers.get("retry-after", "")
        if answer.status == 404 and self.entry.size >= WORTH_WAITING and seconds.isdecimal():
            wait_s = min(max(float(seconds[:6]), 1.0), LONGEST_WAIT_S)
            self._waited_s += wait_s
            if self._waited_s <= LONGEST_WAIT_S:
                return NotYet(wait_s)
        return self._no_use()

    def took(self, chunk: bytes) -> None:
        """Count bytes; the file that they make is hashed."""
        self.size += len(chunk)

    # --- applying

    def finish(self, check: Callable[[], None]) -> None:
        """Make the file, beginning from the old one."""
        try:
            self._apply(check)
        except BadDelta as e:
            wrong = hash_file(self.part)[0] != self.tag
            self._drop()
            if wrong:
                words = f"{self.entry.path}: a wrong delta"
                raise WrongDelta(Reason.BLOB_MISMATCH, words) from e
            raise NoUse from e
        self._disk.chmod(self._made, _READ_ONLY)
        self._disk.move(self._made, self._blobs / self.entry.sha256)
        self._drop()

    def _apply(self, check: Callable[[], None]) -> None:
        with ExitStack() as stack:
            kept = None
            if self._disk.size(self._made):
                kept = stack.enter_context(self._made.open("rb"))
            delta = stack.enter_context(self.part.open("rb"))
            old: BinaryIO = io.BytesIO()
            if self._base.size:
                old = stack.enter_context((self._blobs / self._base.sha256).open("rb"))
            add = stack.enter_context(appending(self._disk, self._made))
            self._check_header(delta)

            def write(piece: bytes) -> None:
                add(piece)
                check()

            Applier(
                delta,
                old,
                write,
                max_memory=self._max_memory,
                kept=kept,
                truncate=lambda size: self._disk.truncate(self._made, size),
            ).run()

    def _check_header(self, delta: BinaryIO) -> None:
        """Check that a delta is for these two files, whose digests are signed."""
        header = Header.parse(delta.read(HEADER_BYTES))
        found = (header.old_sha256, header.old_size, header.new_sha256, header.new_size)
        base, entry = self._base, self.entry
        if found != (base.sha256, base.size, entry.sha256, entry.size):
            raise BadDelta(f"{entry.path}: the source sent a delta between other files")
        delta.seek(0)

    def _no_use(self) -> NoUse:
        self._drop()
        return NoUse()

    def _drop(self) -> None:
        """Remove all that is there."""
        self._disk.unlink(self.part)
        self._disk.unlink(self._made)
