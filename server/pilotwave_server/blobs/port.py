"""What a blob store promises, whatever keeps the bytes; and the ways in which it says no.

A blob is named by its SHA-256. It is there whole, verified and durable, or it is not there. Who may
read or write one, and which blobs belong to what, is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Protocol

from pilotwave_server.errors import Conflict, Invalid, NotFound, ServerError, TooLarge, Unavailable


class BlobMissing(NotFound):
    code = "blob_missing"

    def __init__(self, sha256: str) -> None:
        super().__init__(f"no blob {sha256} is stored here", sha256=sha256)


class BlobBusy(Conflict):
    """Somebody else is sending the same blob. Ask again a little later."""

    code = "blob_busy"

    def __init__(self, sha256: str) -> None:
        super().__init__(
            f"blob {sha256} is being uploaded by another request: ask for its offset again soon",
            headers={"Retry-After": "1"},
        )


class OffsetMismatch(Conflict):
    code = "offset_mismatch"

    def __init__(self, *, expected: int, got: int) -> None:
        super().__init__(
            f"the next byte to send is number {expected}, but the request begins at {got}",
            offset=expected,
        )


class DigestMismatch(Invalid):
    """The bytes that came are not the blob they were called. They were thrown away."""

    code = "digest_mismatch"

    def __init__(self, *, expected: str, got: str) -> None:
        super().__init__(
            f"the bytes have the SHA-256 {got}, not {expected}: nothing was kept, begin again at 0",
            offset=0,
        )


class BlobTooLong(TooLarge):
    code = "blob_too_long"


class UploadStalled(ServerError):
    """No byte came for a while. What came before is kept."""

    status: ClassVar[int] = 408
    code = "upload_stalled"
    title = "The upload stood still for too long"


class NoSpace(ServerError):
    status: ClassVar[int] = 507
    code = "no_space"
    title = "The server has no room for this"


class StoreBroken(Unavailable):
    """The disk (or bucket) under the store refuses its work."""

    code = "blob_store_broken"


class BlobDamaged(StoreBroken):
    """The store has other bytes under a blob's name."""

    code = "blob_damaged"


class Upload(Protocol):
    """One writer's hold on one blob that is not whole yet. Use it as a context manager.

    Leaving the block releases the hold and keeps what was written, so that a later upload goes on
    from `offset`.
    """

    @property
    def offset(self) -> int:
        """The number of bytes that are written."""
        ...

    def write(self, chunks: Sequence[bytes]) -> None:
        """Append and hash. Raises NoSpace, StoreBroken."""
        ...

    def finish(self) -> None:
        """Make the blob whole and durable. Raises DigestMismatch (then nothing is kept)."""
        ...

    def close(self) -> None:
        """Release the hold; what was written stays. Waits for a write that is under way."""
        ...

    def __enter__(self) -> Upload: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class BlobStore(Protocol):
    """A place for blobs. Methods that are not `async` may block; all are safe to call from threads.

    Each raises StoreBroken where the place does not answer or refuses its work.
    """

    @property
    def name(self) -> str:
        """What the place is, for people: `the folder /srv/blobs`, `s3://models/fleet`."""
        ...

    def identity(self) -> str:
        """What tells this place from any other, on whichever host it is asked."""
        ...

    @property
    def threads(self) -> Executor:
        """Threads for the store's blocking work, apart from those that answer other requests."""
        ...

    def check(self, *, write: bool = False) -> None:
        """Find out whether blobs can be reached now, or also written; StoreBroken says why not."""
        ...

    def size(self, sha256: str) -> int | None:
        """The blob's size in bytes, or None when it is not (wholly) there."""
        ...

    async def find(self, sha256: str) -> int | None:
        """`size`, without blocking the event loop."""
        ...

    def sizes(self, wanted: Collection[str]) -> dict[str, int | None]:
        """`size` of many."""
        ...

    def partial(self, sha256: str) -> int:
        """How many bytes of an unfinished upload are kept."""
        ...

    def put(self, data: bytes) -> str:
        """Store a small blob in one go and return its digest. Storing it again changes nothing."""
        ...

    def begin(self, sha256: str, *, offset: int, length: int, restart: bool = False) -> Upload:
        """Take hold of an upload of `length` bytes in all that goes on at `offset`; `restart` drops
        what an earlier upload left.

        Raises BlobBusy, OffsetMismatch, NoSpace, StoreBroken.
        """
        ...

    def read(self, sha256: str, most: int) -> bytes:
        """The first `most` bytes of a blob, or BlobMissing."""
        ...

    def local(self, sha256: str) -> AbstractContextManager[Path]:
        """A file of the blob's bytes, to be read within the block only. BlobMissing,
        BlobDamaged where that is looked at, NoSpace."""
        ...

    def stream(self, sha256: str, start: int, stop: int) -> AsyncIterator[bytes | memoryview]:
        """The bytes from `start` up to `stop`, in pieces, without blocking the event loop.
        BlobMissing."""
        ...

    def direct_url(self, sha256: str, *, lifetime_s: int) -> str | None:
        """A URL that opens the blob to whoever has it, for so long, without this server; None where
        the place has none."""
        ...

    def all(self) -> Iterator[tuple[str, int]]:
        """Every whole blob: (sha256, size)."""
        ...

    def age_from(self, sha256: str) -> float:
        """When a whole blob was written, in seconds since 1970; now where it is gone."""
        ...

    def delete(self, sha256: str) -> None:
        """Remove a whole blob that nothing refers to."""
        ...

    def sweep(self, *, older_than_s: float) -> int:
        """Delete unfinished uploads that nobody touched for that long; return how many."""
        ...
