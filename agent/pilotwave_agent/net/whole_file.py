"""Fetch a file itself, in `<sha256>.part`: what arrived before is hashed again and gone on with.

What it weighs is known from the signed manifest, never from the server. Bytes that turn out wrong
are removed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

from pilotwave_agent.host.disk import Disk
from pilotwave_agent.net.http import Streamed
from pilotwave_protocol.digest import CHUNK
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.manifest import FileEntry
from pilotwave_protocol.states import Reason

_REASONS = {
    401: Reason.BLOB_DENIED,
    403: Reason.BLOB_DENIED,
    404: Reason.BLOB_MISSING,
    410: Reason.BLOB_MISSING,
}


def part_of(blobs: Path, entry: FileEntry) -> Path:
    """Return where a file arrives."""
    return blobs / f"{entry.sha256}.part"


def missing_bytes(disk: Disk, blobs: Path, entries: Iterable[FileEntry]) -> int:
    """Return how many bytes of these files are still to come."""
    wanted = {e.sha256: e for e in entries}.values()
    missing = [e for e in wanted if disk.size(blobs / e.sha256) != e.size]
    return sum(max(e.size - (disk.size(part_of(blobs, e)) or 0), 0) for e in missing)


class WholeFile:
    """The way that always leads to the file, if anybody has it."""

    def __init__(self, disk: Disk, blobs: Path, entry: FileEntry) -> None:
        self._disk, self._blobs, self.entry = disk, blobs, entry
        self.path, self.tag = f"/blobs/{entry.sha256}", entry.sha256
        self.part = part_of(blobs, entry)
        self._begin()

    def _begin(self) -> None:
        self.size, self.resumed, self._hasher = 0, False, hashlib.sha256()

    def resume(self) -> bool:
        """Hash what has arrived before; say whether that is all."""
        self._begin()
        size = self._disk.size(self.part)
        if size is not None and size > self.entry.size:
            self._disk.unlink(self.part)
        elif size is not None:
            with self.part.open("rb") as stream:
                while chunk := stream.read(CHUNK):
                    self.took(chunk)
        self.resumed = self.size > 0
        return self.size == self.entry.size

    def judge(self, answer: Streamed, room: int) -> int:
        """Check an answer's status and length; return the file's size."""
        size = self.entry.size
        if answer.status == 206 and self.size:
            start = f"bytes {self.size}-{size - 1}/{size}"
            if answer.headers.get("content-range") != start:
                words = f"asked to go on at {self.size}, the source offers another part"
                raise self._dropped(Reason.BLOB_MISMATCH, words)
        elif answer.status == 200:
            if self.size:
                self._disk.truncate(self.part, 0)
                self._begin()
        elif answer.status == 416:
            words = f"the source has no more than {self.size} bytes of it"
            raise self._dropped(Reason.BLOB_TRUNCATED, words)
        else:
            reason = _REASONS.get(answer.status, Reason.BLOB_UNAVAILABLE)
            words = f"{self.entry.path}: the source answered with status {answer.status}"
            raise RefusedError(reason, words)
        total = size if answer.length is None else self.size + answer.length
        if total != size:
            reason = Reason.BLOB_TOO_LONG if total > size else Reason.BLOB_TRUNCATED
            raise self._dropped(reason, f"expected {size} bytes; the source offers {total}")
        return size

    def took(self, chunk: bytes) -> None:
        """Count and hash bytes; no more may come than are signed."""
        if self.size + len(chunk) > self.entry.size:
            words = f"expected {self.entry.size} bytes; more came"
            raise self._dropped(Reason.BLOB_TOO_LONG, words)
        self._hasher.update(chunk)
        self.size += len(chunk)

    def finish(self, check: Callable[[], None]) -> None:
        """Put the file into the blob store, if it is the one that was signed."""
        if self.size < self.entry.size:
            words = f"expected {self.entry.size} bytes; {self.size} came"
            raise self._dropped(Reason.BLOB_TRUNCATED, words)
        if self.size == 0 and self._disk.size(self.part) is None:
            self._disk.append(self.part, b"")  # an empty file is a file too
        if self._hasher.hexdigest() != self.entry.sha256:
            words = "the bytes that came are not the ones that were signed"
            raise self._dropped(Reason.BLOB_MISMATCH, words)
        # all of it may have come before a crash, and none of it be on disk
        self._disk.sync_bytes(self.part)
        self._disk.chmod(self.part, 0o444)
        self._disk.move(self.part, self._blobs / self.entry.sha256)

    def _dropped(self, reason: Reason, words: str) -> RefusedError:
        """Remove what has arrived; return the refusal that says why."""
        self._disk.unlink(self.part)
        return RefusedError(reason, f"{self.entry.path}: {words}")
