"""From an HTTP request body into an upload, with bounded memory and the event loop free.

The loop gathers about a megabyte while a thread writes and hashes the one before, so that network
and disk overlap. At most two blocks are in memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from pilotwave_server.blobs.port import Upload, UploadStalled

T = TypeVar("T")
BLOCK = 1 << 20
IDLE_S = 60.0


class Blocks:
    """A request body in blocks of about `BLOCK` bytes, each a list of pieces as they came."""

    def __init__(self, receive: Receive, *, idle_s: float = IDLE_S) -> None:
        self._receive = receive
        self._idle_s = idle_s
        self._pieces: list[bytes] = []
        self._size = 0
        self._ended = False
        self._lost = False

    async def next(self) -> list[bytes]:
        """The next block; empty at the end. Raises UploadStalled, ClientDisconnect.

        On a slow link a block is whatever came within `idle_s` seconds, so that no byte is lost.
        """
        if not self._ended:
            try:
                await asyncio.wait_for(self._gather(), self._idle_s)
            except asyncio.TimeoutError:
                if not self._pieces:
                    raise UploadStalled(
                        f"no byte came for {self._idle_s:.0f} s; what came before is kept"
                    ) from None
        pieces, self._pieces, self._size = self._pieces, [], 0
        if not pieces and self._lost:
            raise ClientDisconnect
        return pieces

    async def _gather(self) -> None:
        while self._size < BLOCK and not self._ended:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self._ended = self._lost = True
                return
            piece = message.get("body", b"")
            if piece:
                self._pieces.append(piece)
                self._size += len(piece)
            self._ended = not message.get("more_body", False)


async def receive_into(upload: Upload, blocks: Blocks, threads: Executor) -> None:
    """Write all blocks. On any error what was received before it is written still."""
    loop = asyncio.get_running_loop()
    writing: asyncio.Future[None] | None = None
    try:
        while pieces := await blocks.next():
            if writing is not None:
                await writing
            writing = loop.run_in_executor(threads, upload.write, pieces)
    finally:
        if writing is not None:
            await writing


async def in_thread(threads: Executor, work: Callable[..., T], /, **given: object) -> T:
    """Run blocking work of the store on its own threads."""
    return await asyncio.get_running_loop().run_in_executor(threads, partial(work, **given))
