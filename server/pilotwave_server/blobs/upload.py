"""One upload into one `.part` file: who holds it, where it goes on, when it counts as done.

The hold is a lock on the file itself, so it binds threads and processes alike and ends with its
process. The running hash is kept in memory between two requests; a process that has not seen the
earlier bytes hashes the file once more.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from types import TracebackType

from pilotwave_protocol.digest import CHUNK
from pilotwave_server.blobs.port import (
    BlobBusy,
    BlobTooLong,
    DigestMismatch,
    NoSpace,
    OffsetMismatch,
    StoreBroken,
)

_FULL = {errno.ENOSPC, errno.EDQUOT}
_MAX_VECTORS = 512


@dataclass(frozen=True)
class HashState:
    """The hash of a partial file as it was last left, and the mark of that very state."""

    mark: tuple[int, int, int]
    hasher: hashlib._Hash


@contextmanager
def as_store_error(what: str) -> Iterator[None]:
    """Turn the operating system's errors into NoSpace or StoreBroken."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise NoSpace(
                "the disk under the data folder is full; make room, then upload again"
            ) from error
        raise StoreBroken(f"{what}: {error.strerror or error}") from error


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def take_part(path: Path, sha256: str) -> int:
    """Open and lock the partial file, making it when it is not there. Raises BlobBusy."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it before may have renamed or deleted this very file meanwhile.
            if os.fstat(fd).st_ino == os.stat(path).st_ino:
                return fd
        except FileNotFoundError:
            pass
        except BlockingIOError:
            os.close(fd)
            raise BlobBusy(sha256) from None
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _mark(fd: int) -> tuple[int, int, int]:
    found = os.fstat(fd)
    return found.st_ino, found.st_size, found.st_mtime_ns


class FileUpload:
    """The `Upload` of the filesystem store. One thread writes; any may close."""

    def __init__(
        self,
        *,
        fd: int,
        sha256: str,
        length: int,
        part: Path,
        final: Path,
        known: HashState | None,
        remember: Callable[[str, HashState], None],
    ) -> None:
        self.offset = 0
        self._fd = fd
        self._sha256 = sha256
        self._length = length
        self._part = part
        self._final = final
        self._known = known
        self._remember = remember
        self._hasher: hashlib._Hash | None = None
        self._done = False
        # A cancelled request closes while a thread may still be writing.
        self._turn = Lock()

    def prepare(self, *, offset: int, restart: bool) -> None:
        """Find out where the upload stands, and refuse one that begins elsewhere."""
        with as_store_error("an upload cannot be read"):
            if restart:
                os.ftruncate(self._fd, 0)
            self.offset = os.fstat(self._fd).st_size
            if self.offset > self._length:
                # An upload of another length is no beginning of this one.
                os.ftruncate(self._fd, 0)
                self.offset = 0
            if offset != self.offset:
                raise OffsetMismatch(expected=self.offset, got=offset)
            self._hasher = self._hash_so_far()

    def _hash_so_far(self) -> hashlib._Hash:
        if self._known is not None and self._known.mark == _mark(self._fd):
            return self._known.hasher.copy()
        hasher = hashlib.sha256()
        done = 0
        while done < self.offset and (chunk := os.pread(self._fd, CHUNK, done)):
            hasher.update(chunk)
            done += len(chunk)
        return hasher

    def write(self, chunks: Sequence[bytes]) -> None:
        with self._turn:
            self._write(chunks)

    def _write(self, chunks: Sequence[bytes]) -> None:
        size = sum(map(len, chunks))
        if self._fd < 0 or self._hasher is None:
            raise StoreBroken("the upload was given up")
        if self.offset + size > self._length:
            raise BlobTooLong(
                f"the blob was announced with {self._length} bytes, but more came",
                offset=self.offset,
            )
        try:
            with as_store_error("an upload cannot be written"):
                _write_all(self._fd, chunks, self.offset)
        except BaseException:
            # The hash knows nothing of a half-written piece, so the file may not either.
            os.ftruncate(self._fd, self.offset)
            raise
        for chunk in chunks:
            self._hasher.update(chunk)
        self.offset += size

    def finish(self) -> None:
        got = self._hasher.hexdigest() if self._hasher else ""
        if got != self._sha256 or self.offset != self._length:
            os.unlink(self._part)
            self._done = True
            raise DigestMismatch(expected=self._sha256, got=got)
        with as_store_error("a blob cannot be made durable"):
            os.fsync(self._fd)
            folder = self._final.parent
            if not folder.is_dir():
                folder.mkdir(exist_ok=True)
                fsync_folder(folder.parent)
            os.rename(self._part, self._final)
            self._done = True
            fsync_folder(folder)

    def close(self) -> None:
        """Let go. What was written stays, and with it the state of its hash."""
        with self._turn:
            if self._fd < 0:
                return
            mark = _mark(self._fd)
            if self._hasher is None:
                if self._known is not None:
                    self._remember(self._sha256, self._known)
            elif not self._done and mark[1] == self.offset:
                self._remember(self._sha256, HashState(mark, self._hasher))
            # by word, as a process that is just being started may have the descriptor still
            fcntl.flock(self._fd, fcntl.LOCK_UN)
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> FileUpload:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _write_all(fd: int, chunks: Sequence[bytes], offset: int) -> None:
    for first in range(0, len(chunks), _MAX_VECTORS):
        views = [memoryview(chunk) for chunk in chunks[first : first + _MAX_VECTORS] if chunk]
        while views:
            done = os.pwritev(fd, views, offset)
            offset += done
            while views and done >= len(views[0]):
                done -= len(views.pop(0))
            if done:
                views[0] = views[0][done:]
