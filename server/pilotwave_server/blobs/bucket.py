"""Blobs in a bucket (S3, Azure Blob Storage, Google Cloud Storage): `blobs/<sha256>` when whole,
`uploads/…` while they arrive.

The digest is computed here from what passes; the store's own checksums count for nothing. Which
bytes of an upload are stored is in the database (`upload_rows`), so that any host goes on with it.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import time
from collections.abc import AsyncIterator, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, TYPE_CHECKING, Any

import obstore
from obstore.exceptions import BaseError
from obstore.store import from_url

from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.names import check_sha256
from pilotwave_server.blobs import upload_rows as rows
from pilotwave_server.blobs.bucket_errors import GONE, as_store_error
from pilotwave_server.blobs.bucket_upload import READ, BucketUpload
from pilotwave_server.blobs.port import BlobDamaged, BlobMissing, NoSpace, StoreBroken
from pilotwave_server.blobs.upload import as_store_error as as_disk_error
from pilotwave_server.clock import Clock
from pilotwave_server.db import Database
from pilotwave_server.errors import BadSetting

if TYPE_CHECKING:
    from obstore.store import AzureStore, GCSStore, S3Store

PIECE = 256 * 1024
RESERVE = 64 * 1024 * 1024
SIDE_BY_SIDE = 16
_BLOBS = "blobs"
_COPY, _COPY_MOST_S = "blob-", 86_400
_TRIES = 3
_CLIENT: dict[str, Any] = {"timeout": "300s", "connect_timeout": "5s", "allow_http": True}
_RETRY: dict[str, Any] = {
    "max_retries": 3,
    "retry_timeout": timedelta(seconds=15),
    "backoff": {
        "init_backoff": timedelta(milliseconds=100),
        "max_backoff": timedelta(seconds=2),
        "base": 2,
    },
}


def open_bucket(url: str, db: Database, *, scratch: Path, clock: Clock) -> BucketBlobs:
    """The store at `s3://…`, `az://…` or `gs://…`, with credentials from the usual environment."""
    name = url.rstrip("/")
    try:
        store = from_url(name, client_options=_CLIENT, retry_config=_RETRY)  # type: ignore[call-overload]  # of all three alike
    except BaseError as error:
        raise BadSetting(f"PILOTWAVE_BLOBS={name} cannot be used: {error}") from None
    return BucketBlobs(store, db, name=name, scratch=scratch, clock=clock)


class BucketBlobs:
    """The `BlobStore` on a bucket. Any number of hosts may share it, and the database with it.

    `scratch` is a folder for copies of blobs that are looked into; `reserve` bytes of its disk are
    never filled.
    """

    def __init__(
        self,
        store: S3Store | AzureStore | GCSStore,
        db: Database,
        *,
        name: str,
        scratch: Path,
        clock: Clock,
        reserve: int = RESERVE,
    ) -> None:
        self.name = name
        self._store, self._db, self._clock = store, db, clock
        self._scratch, self._reserve = scratch, reserve
        self.threads = ThreadPoolExecutor(SIDE_BY_SIDE, "blobs")
        self._askers = ThreadPoolExecutor(SIDE_BY_SIDE, "blob-sizes")

    def check(self, *, write: bool = False) -> None:
        with as_store_error(self.name):
            if write:
                probe = f"{rows.UPLOADS}/check"
                obstore.put(self._store, probe, b"")
                obstore.delete(self._store, probe)
            next(iter(obstore.list(self._store, rows.UPLOADS, chunk_size=1)), None)

    def identity(self) -> str:
        return self.name

    def size(self, sha256: str) -> int | None:
        try:
            with as_store_error(self.name):
                return int(obstore.head(self._store, _key(sha256))["size"])
        except StoreBroken as error:
            _check_gone(error)
            return None

    async def find(self, sha256: str) -> int | None:
        try:
            with as_store_error(self.name):
                return int((await obstore.head_async(self._store, _key(sha256)))["size"])
        except StoreBroken as error:
            _check_gone(error)
            return None

    def sizes(self, wanted: Collection[str]) -> dict[str, int | None]:
        return dict(zip(wanted, self._askers.map(self.size, wanted), strict=True))

    def partial(self, sha256: str) -> int:
        with self._db.read() as session:
            return rows.received(session, check_sha256(sha256))

    def put(self, data: bytes) -> str:
        sha256 = sha256_hex(data)
        if self.size(sha256) != len(data):
            with as_store_error(self.name):
                obstore.put(self._store, _key(sha256), data)
        return sha256

    def begin(
        self, sha256: str, *, offset: int, length: int, restart: bool = False
    ) -> BucketUpload:
        final, now = _key(sha256), self._clock()
        with self._db.write() as session:
            held = rows.take(
                session, sha256, offset=offset, length=length, restart=restart, now=now
            )
        self._delete([piece.key for piece in held.dropped])
        return BucketUpload(
            self._store,
            self._db,
            name=self.name,
            sha256=sha256,
            final=final,
            length=length,
            held=held,
            clock=self._clock,
        )

    def read(self, sha256: str, most: int) -> bytes:
        found = self.size(sha256)
        if found is None:
            raise BlobMissing(sha256)
        if not found:
            return b""
        with as_store_error(self.name):
            part = obstore.get_range(self._store, _key(sha256), start=0, end=min(most, found))
        return part.to_bytes()

    @contextmanager
    def local(self, sha256: str) -> Iterator[Path]:
        size = self.size(sha256)
        if size is None:
            raise BlobMissing(sha256)
        self._scratch.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self._scratch).free
        if size + self._reserve > free:
            raise NoSpace(
                f"blob {sha256} is copied to {self._scratch} to be looked into; its {size} bytes "
                f"do not fit: {free} are free and {self._reserve} of them stay free",
                needed=size,
                free=free,
            )
        with NamedTemporaryFile(dir=self._scratch, prefix=_COPY) as copy:
            with as_disk_error(f"a blob cannot be copied to {self._scratch}"):
                self._copy(sha256, copy)
            yield Path(copy.name)

    def _copy(self, sha256: str, to: IO[bytes]) -> None:
        hasher = hashlib.sha256()
        try:
            with as_store_error(self.name):
                for chunk in obstore.get(self._store, _key(sha256)).stream(READ):
                    data = bytes(chunk)
                    hasher.update(data)
                    to.write(data)
        except StoreBroken as error:
            _check_gone(error)
            raise BlobMissing(sha256) from error
        to.flush()
        if hasher.hexdigest() != sha256:
            raise BlobDamaged(f"{self.name}: the object {_key(sha256)} has other bytes")

    async def stream(self, sha256: str, start: int, stop: int) -> AsyncIterator[bytes]:
        # A store may end a slow reader's connection: go on where it was cut, while bytes come.
        tries = 0
        while start < stop:
            before = start
            try:
                async for piece in self._stream(sha256, start, stop):
                    start += len(piece)
                    yield piece
            except StoreBroken as error:
                if _is_gone(error):
                    raise BlobMissing(sha256) from error
                tries = tries + 1 if start == before else 1
                if tries >= _TRIES or start == before:
                    raise
                await asyncio.sleep(0.1)
            if start == before:
                raise StoreBroken(f"{self.name}: the object {_key(sha256)} is shorter than it was")

    async def _stream(self, sha256: str, start: int, stop: int) -> AsyncIterator[bytes]:
        with as_store_error(self.name):
            found = await obstore.get_async(
                self._store, _key(sha256), options={"range": (start, stop)}
            )
            async for chunk in found.stream(PIECE):
                yield bytes(chunk)

    def direct_url(self, sha256: str, *, lifetime_s: int) -> str:
        with as_store_error(self.name):
            return obstore.sign(self._store, "GET", _key(sha256), timedelta(seconds=lifetime_s))

    def all(self) -> Iterator[tuple[str, int]]:
        with as_store_error(self.name):
            for page in obstore.list(self._store, _BLOBS):
                for found in page:
                    yield found["path"].rpartition("/")[2], found["size"]

    def age_from(self, sha256: str) -> float:
        try:
            with as_store_error(self.name):
                return obstore.head(self._store, _key(sha256))["last_modified"].timestamp()
        except StoreBroken as error:
            _check_gone(error)
            return time.time()

    def delete(self, sha256: str) -> None:
        self._delete([_key(sha256)])

    def sweep(self, *, older_than_s: float) -> int:
        now = self._clock()
        before = now - timedelta(seconds=older_than_s)
        with self._db.write() as session:
            pieces = rows.forget_old(session, before=before, now=now)
        self._delete([piece.key for piece in pieces])
        self._clear_scratch()
        return len({piece.sha256 for piece in pieces}) + self._sweep_strays(older_than_s)

    def _clear_scratch(self) -> None:
        """Remove copies that a server left which was killed."""
        for path in self._scratch.glob(f"{_COPY}*"):
            with suppress(OSError):
                if path.stat().st_mtime < time.time() - _COPY_MOST_S:
                    path.unlink()

    def _sweep_strays(self, older_than_s: float) -> int:
        """Remove pieces that a host wrote and did not live to note."""
        before = time.time() - older_than_s
        with as_store_error(self.name):
            old = [
                found["path"]
                for page in obstore.list(self._store, rows.UPLOADS)
                for found in page
                if found["last_modified"].timestamp() < before
            ]
        if old:
            with self._db.read() as session:
                kept = rows.known(session, old)
            old = [key for key in old if key not in kept]
            self._delete(old)
        return len(old)

    def _delete(self, keys: list[str]) -> None:
        if keys:
            with as_store_error(self.name):
                obstore.delete(self._store, keys)


def _key(sha256: str) -> str:
    return f"{_BLOBS}/{check_sha256(sha256)}"


def _is_gone(error: StoreBroken) -> bool:
    return isinstance(error.__cause__, GONE)


def _check_gone(error: StoreBroken) -> None:
    """Raise `error`, unless it says that there is no such object."""
    if not _is_gone(error):
        raise error
