"""Blobs in folders: `ab/<sha256>` when whole, `partial/<sha256>.part` while they arrive.

A blob gets its final name only after its digest was checked and its bytes were fsynced, so whatever
carries a final name can be trusted after any crash. The rules are `port.py`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import BinaryIO

from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.names import check_sha256
from pilotwave_server.blobs.port import BlobMissing, NoSpace, StoreBroken
from pilotwave_server.blobs.upload import (
    FileUpload,
    HashState,
    as_store_error,
    fsync_folder,
    take_part,
)

READ_SIZE = 256 * 1024
RESERVE = 64 * 1024 * 1024
_REMEMBERED_HASHES = 256


class FileBlobs:
    """The `BlobStore` on a folder. Several processes may share the folder.

    `free_space` returns the bytes free under a path; `reserve` bytes of it are never filled.
    """

    def __init__(
        self,
        root: Path,
        *,
        reserve: int = RESERVE,
        free_space: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free,
    ) -> None:
        self.root = root
        self.name = f"the folder {root}"
        self._partial = root / "partial"
        self._reserve = reserve
        self._free_space = free_space
        self._hashes: OrderedDict[str, HashState] = OrderedDict()
        self._lock = Lock()
        # Own threads: a slow disk must not take the ones that answer operators.
        self.threads = ThreadPoolExecutor(8, "blobs")
        with as_store_error(f"the blob folder {root} cannot be written"):
            self._partial.mkdir(parents=True, exist_ok=True)

    def path(self, sha256: str) -> Path:
        """Where the whole blob lies or will lie."""
        check_sha256(sha256)
        return self.root / sha256[:2] / sha256

    def part_path(self, sha256: str) -> Path:
        return self._partial / f"{check_sha256(sha256)}.part"

    def size(self, sha256: str) -> int | None:
        return _size(self.path(sha256))

    async def find(self, sha256: str) -> int | None:
        return self.size(sha256)

    def sizes(self, wanted: Collection[str]) -> dict[str, int | None]:
        return {sha256: self.size(sha256) for sha256 in wanted}

    def check(self, *, write: bool = False) -> None:
        if not os.access(self._partial, os.W_OK | os.X_OK):
            raise StoreBroken(f"the blob folder {self.root} is gone or cannot be written")

    def identity(self) -> str:
        path = self.root / "identity"
        with as_store_error(f"the blob folder {self.root} cannot be written"):
            with contextlib.suppress(FileNotFoundError):
                return path.read_text()
            new = self._partial / f"{secrets.token_hex(8)}.part"
            try:
                with new.open("w") as file:
                    file.write(secrets.token_hex(16))
                    file.flush()
                    os.fsync(file.fileno())
                with contextlib.suppress(FileExistsError):
                    os.link(new, path)  # of several hosts that start at once, one is first
            finally:
                new.unlink(missing_ok=True)
            fsync_folder(self.root)
            return path.read_text()

    def partial(self, sha256: str) -> int:
        return _size(self.part_path(sha256)) or 0

    def put(self, data: bytes) -> str:
        sha256 = sha256_hex(data)
        if self.size(sha256) == len(data):
            return sha256
        with self.begin(sha256, offset=0, length=len(data), restart=True) as upload:
            upload.write([data])
            upload.finish()
        return sha256

    def begin(self, sha256: str, *, offset: int, length: int, restart: bool = False) -> FileUpload:
        self._check_space(length - offset)
        with as_store_error("an upload cannot be opened"):
            fd = take_part(self.part_path(sha256), sha256)
        upload = FileUpload(
            fd=fd,
            sha256=sha256,
            length=length,
            part=self.part_path(sha256),
            final=self.path(sha256),
            known=self._recall(sha256),
            remember=self._remember,
        )
        try:
            upload.prepare(offset=offset, restart=restart)
        except BaseException:
            upload.close()
            raise
        return upload

    def read(self, sha256: str, most: int) -> bytes:
        with self._open(sha256) as file:
            return file.read(most)

    @contextlib.contextmanager
    def local(self, sha256: str) -> Iterator[Path]:
        self._open(sha256).close()
        yield self.path(sha256)

    def _open(self, sha256: str) -> BinaryIO:
        try:
            return open(self.path(sha256), "rb")
        except FileNotFoundError:
            raise BlobMissing(sha256) from None

    async def stream(self, sha256: str, start: int, stop: int) -> AsyncIterator[bytes | memoryview]:
        loop = asyncio.get_running_loop()
        with self._open(sha256) as file:
            fd = file.fileno()
            while start < stop:
                want = min(READ_SIZE, stop - start)
                # What the page cache holds is read on the spot; only a disk is worth a thread.
                piece: bytes | memoryview | None = _read_cached(fd, want, start)
                if piece is None:
                    piece = await loop.run_in_executor(self.threads, os.pread, fd, want, start)
                if not piece:
                    raise BlobMissing(sha256)
                start += len(piece)
                yield piece

    def direct_url(self, sha256: str, *, lifetime_s: int) -> None:
        return None

    def all(self) -> Iterator[tuple[str, int]]:
        for folder in sorted(self.root.glob("[0-9a-f][0-9a-f]")):
            for path in sorted(folder.iterdir()):
                yield path.name, path.stat().st_size

    def age_from(self, sha256: str) -> float:
        try:
            return self.path(sha256).stat().st_mtime
        except FileNotFoundError:
            return time.time()

    def delete(self, sha256: str) -> None:
        # who is reading it reads on
        with as_store_error("a blob cannot be removed"), contextlib.suppress(FileNotFoundError):
            self.path(sha256).unlink()

    def sweep(self, *, older_than_s: float) -> int:
        gone = 0
        for path in self._partial.glob("*.part"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > older_than_s:
                    path.unlink()
                    gone += 1
        return gone

    def _check_space(self, needed: int) -> None:
        with as_store_error("the free space cannot be read"):
            free = self._free_space(self.root)
        if needed + self._reserve > free:
            raise NoSpace(
                f"{needed} more bytes do not fit: {free} are free and {self._reserve} of them stay"
                " free; make room under the data folder, then upload again",
                needed=needed,
                free=free,
            )

    def _recall(self, sha256: str) -> HashState | None:
        with self._lock:
            return self._hashes.pop(sha256, None)

    def _remember(self, sha256: str, state: HashState) -> None:
        with self._lock:
            self._hashes[sha256] = state
            while len(self._hashes) > _REMEMBERED_HASHES:
                self._hashes.popitem(last=False)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _read_cached(fd: int, size: int, offset: int) -> memoryview | None:
    """Read without waiting for a disk; None when that is not possible."""
    buffer = bytearray(size)
    try:
        got = os.preadv(fd, [buffer], offset, os.RWF_NOWAIT)
    except (AttributeError, OSError):
        return None
    return memoryview(buffer)[:got]
