"""What a blob store promises, whatever keeps the bytes; and the ways in which it says no.

A blob is named by its SHA-256. It is there whole, verified and durable, or it is not there. Who may
read or write one, and which blobs belong to what, is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Executor
from types import TracebackType
from typing import BinaryIO, ClassVar, Protocol

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
    """A place for blobs. Every method but `stream` may block; all are safe to call from threads."""

    @property
    def threads(self) -> Executor:
        """Threads for the store's blocking work, apart from those that answer other requests."""
        ...

    def size(self, sha256: str) -> int | None:
        """The blob's size in bytes, or None when it is not (wholly) there."""
        ...

    def partial(self, sha256: str) -> int:
        """How many bytes of an unfinished upload are kept."""
        ...

    def put(self, data: bytes) -> str:
        """Store a small blob in one go and return its digest. Storing it again changes nothing."""
        ...

    def begin(self, sha256: str, *, offset: int, length: int) -> Upload:
        """Take hold of an upload of `length` bytes in all that goes on at `offset`.

        Raises BlobBusy, OffsetMismatch, NoSpace, StoreBroken.
        """
        ...

    def open(self, sha256: str) -> BinaryIO:
        """A seekable stream of the whole blob, or BlobMissing."""
        ...

    def stream(self, sha256: str, start: int, stop: int) -> AsyncIterator[bytes | memoryview]:
        """The bytes from `start` up to `stop`, in pieces, without blocking the event loop."""
        ...
