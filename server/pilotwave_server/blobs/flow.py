"""How one download goes: when it may begin, how fast its bytes may go, and who is told of them.

What a device, a site and the server allow is `downloads`'s to say; here is what sending asks.
"""

from __future__ import annotations

import asyncio
from typing import Any, Literal, Protocol

WHOLE_PIECES = 256 * 1024


class ReaderGone(Exception):
    """The client went away before its turn came."""


class Flow(Protocol):
    """One answer's bytes, from `begin` to `end`."""

    @property
    def piece(self) -> int:
        """How many bytes to send at a time, at most."""
        ...

    async def begin(self, gone: asyncio.Future[Any]) -> None:
        """Wait for a turn. Raises `ReaderGone` when `gone` is done first, or a 503 that says when
        to come again. Only after it returned there is an `end`."""
        ...

    async def pace(self, count: int) -> None:
        """Wait until so many bytes may be sent."""
        ...

    def sent(self, count: int) -> None:
        """So many bytes went out."""
        ...

    def end(self) -> None:
        """Leave the turn to others."""
        ...

    def of_delta(self, *, size: int, full: int) -> Flow:
        """The flow of a delta of `size` bytes that stands for `full` bytes."""
        ...


class Free:
    """No limit, no count: an operator's download."""

    piece = WHOLE_PIECES

    async def begin(self, gone: asyncio.Future[Any]) -> None:
        return

    async def pace(self, count: int) -> None:
        return

    def sent(self, count: int) -> None:
        return

    def end(self) -> None:
        return

    def of_delta(self, *, size: int, full: int) -> Flow:
        return self


FREE = Free()


class BlobGate(Protocol):
    """Is given a bearer token (or, with `path`, a link to that path) and a digest. Answers how the
    bytes may flow, False where the token may not read them, None when the token is none of its
    kind, or raises its own 401."""

    async def __call__(
        self, bearer: str, sha256: str, *, path: str = ""
    ) -> Flow | Literal[False] | None: ...


class BlobGates(list[BlobGate]):
    """The gates of one server, asked in order (`access`)."""
