"""One upload into a bucket: its bytes are stored in pieces, and made one object at the end.

A piece is what came within a minute, a gigabyte at most, so that a fast upload is one piece. It
counts once it is stored and noted in the database; any host goes on behind it. At the end one
piece, whose digest was computed while it passed, is copied by the store itself; several are read
again, hashed, and written as one. Nothing has the blob's name before its digest was found right.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING

import obstore

from pilotwave_server.blobs import upload_rows as rows
from pilotwave_server.blobs.bucket_errors import GONE, as_store_error
from pilotwave_server.blobs.port import BlobTooLong, DigestMismatch, StoreBroken
from pilotwave_server.blobs.upload_rows import Held, Piece
from pilotwave_server.clock import Clock
from pilotwave_server.db import Database

if TYPE_CHECKING:
    from obstore import WritableFile
    from obstore.store import ObjectStore

PART = 8 << 20
"""Size of the parts that a large object is sent in; of an upload, about three are in memory."""
AT_ONCE = 2
PIECE_BYTES = 1 << 30
PIECE_S = 60.0
RENEW_S = 15.0
READ = 1 << 20


def open_writer(store: ObjectStore, key: str) -> WritableFile:
    """A writer of bounded memory. The object is there once it is closed, and whole."""
    return obstore.open_writer(store, key, buffer_size=PART, max_concurrency=AT_ONCE)


class BucketUpload:
    """The `Upload` of a bucket. One thread writes; any may close."""

    def __init__(
        self,
        store: ObjectStore,
        db: Database,
        *,
        name: str,
        sha256: str,
        final: str,
        length: int,
        held: Held,
        clock: Clock,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._db, self._name = store, db, name
        self._sha256, self._final, self._length = sha256, final, length
        self._holder, self._pieces = held.holder, list(held.pieces)
        self._clock, self._monotonic = clock, monotonic
        self.offset = sum(piece.size for piece in self._pieces)
        self._start = self.offset
        self._writer: WritableFile | None = None
        # of this piece, which is the whole blob where it is the only one
        self._hasher = hashlib.sha256()
        self._began = self._renewed = monotonic()
        self._closed = False
        # A cancelled request closes while a thread may still be writing.
        self._turn = Lock()

    def write(self, chunks: Sequence[bytes]) -> None:
        with self._turn:
            if self._closed:
                raise StoreBroken("the upload was given up")
            size = sum(map(len, chunks))
            if self.offset + size > self._length:
                raise BlobTooLong(
                    f"the blob was announced with {self._length} bytes, but more came",
                    offset=self.offset,
                )
            if size:
                self._append(chunks)
                self.offset += size
            self._keep_hold()

    def _append(self, chunks: Sequence[bytes]) -> None:
        try:
            with as_store_error(self._name):
                if self._writer is None:
                    self._began = self._monotonic()
                    self._hasher = hashlib.sha256()
                    self._writer = open_writer(self._store, self._piece().key)
                for chunk in chunks:
                    self._writer.write(chunk)
        except BaseException as error:
            self._abandon(error)
            raise
        for chunk in chunks:
            self._hasher.update(chunk)

    def _keep_hold(self) -> None:
        now = self._monotonic()
        large = self.offset - self._start >= PIECE_BYTES or now - self._began >= PIECE_S
        if self._writer is not None and large:
            self._store_piece()
        elif now - self._renewed >= RENEW_S:
            with self._db.write() as session:
                rows.renew(session, self._sha256, self._holder, now=self._clock())
            self._renewed = now

    def _piece(self) -> Piece:
        return Piece(self._sha256, self._start, self.offset - self._start, self._holder)

    def _store_piece(self) -> None:
        """Close the piece that is being written, if there is one, and note it."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        piece = self._piece()
        try:
            with as_store_error(self._name):
                writer.close()
        except BaseException:
            self.offset = self._start
            raise
        try:
            with self._db.write() as session:
                rows.add(session, piece, now=self._clock())
        except BaseException:
            self._delete([piece])
            raise
        self._pieces.append(piece)
        self._start, self._renewed = self.offset, self._monotonic()

    def _abandon(self, error: BaseException) -> None:
        """Go back to the last piece that is stored."""
        writer, self._writer = self._writer, None
        self.offset = self._start
        if writer is not None:
            _abort(writer, error)

    def finish(self) -> None:
        with self._turn:
            if self.offset == self._length and not self._pieces:
                self._check(self._hasher.hexdigest())
            self._store_piece()
            if [(p.size, p.holder) for p in self._pieces] == [(self._length, self._holder)]:
                with as_store_error(self._name):
                    obstore.copy(self._store, self._pieces[0].key, self._final)
            else:
                self._join()
            self._end()

    def _join(self) -> None:
        """Read the pieces in their order and write them as one."""
        hasher = hashlib.sha256()
        with as_store_error(self._name):
            writer = open_writer(self._store, self._final)
            try:
                for data in self._read_pieces():
                    hasher.update(data)
                    writer.write(data)
                    self._keep_hold()
                self._check(hasher.hexdigest())
            except BaseException as error:
                _abort(writer, error)
                raise
            writer.close()

    def _read_pieces(self) -> Iterator[bytes]:
        for piece in self._pieces:
            try:
                for chunk in obstore.get(self._store, piece.key).stream(READ):
                    yield bytes(chunk)
            except GONE:
                return  # what is left of the blob will not have its digest

    def _check(self, got: str) -> None:
        if got != self._sha256 or self.offset != self._length:
            self._abandon(DigestMismatch(expected=self._sha256, got=got))
            self._end()
            raise DigestMismatch(expected=self._sha256, got=got)

    def _end(self) -> None:
        """Forget the upload, and remove what it left."""
        self._closed = True
        with self._db.write() as session:
            rows.end(session, self._sha256, self._holder)
        self._delete(self._pieces)

    def _delete(self, pieces: Sequence[Piece]) -> None:
        if not pieces:
            return
        with as_store_error(self._name):
            obstore.delete(self._store, [piece.key for piece in pieces])

    def close(self) -> None:
        """Let go. What was written is stored as a piece and stays."""
        with self._turn:
            if self._closed:
                return
            self._closed = True
            try:
                self._store_piece()
            finally:
                with self._db.write() as session:
                    rows.release(session, self._sha256, self._holder)

    def __enter__(self) -> BucketUpload:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _abort(writer: WritableFile, error: BaseException) -> None:
    """Have the store forget the parts that were sent: leaving a writer by an error does that."""
    writer.__exit__(type(error), error, None)
