"""A blob as an HTTP response: whole, in part, or only its headers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from pilotwave_server.blobs.flow import FREE, Flow, ReaderGone
from pilotwave_server.blobs.port import BlobMissing, BlobStore
from pilotwave_server.blobs.ranges import Part, choose_part
from pilotwave_server.errors import ServerError
from pilotwave_server.problems import error_response

# The name is the content: nothing under it can ever change.
IMMUTABLE = "public, max-age=31536000, immutable"


async def blob_response(
    store: BlobStore, sha256: str, *, headers: Mapping[str, str], body: bool, flow: Flow = FREE
) -> Response:
    """The answer to GET (or HEAD, without `body`) with these request headers, or BlobMissing.

    Its bytes go as `flow` says."""
    size = await store.find(sha256)
    if size is None:
        raise BlobMissing(sha256)
    etag = f'"{sha256}"'
    part = choose_part(
        size=size,
        etag=etag,
        range_=headers.get("range"),
        if_range=headers.get("if-range"),
        if_none_match=headers.get("if-none-match"),
    )
    answer = {"etag": etag, "cache-control": IMMUTABLE, "accept-ranges": "bytes"}
    if part.status == 416:
        answer |= {"content-range": f"bytes */{size}", "cache-control": "no-store"}
    elif part.status == 206:
        answer["content-range"] = f"bytes {part.start}-{part.stop - 1}/{size}"
    return BlobResponse(store, sha256, part, answer, body=body, flow=flow)


class BlobResponse(Response):
    """Streams `part` of a blob; stops reading as soon as the client has gone."""

    media_type = "application/octet-stream"

    def __init__(
        self,
        store: BlobStore,
        sha256: str,
        part: Part,
        headers: Mapping[str, str],
        *,
        body: bool,
        flow: Flow,
    ) -> None:
        self._store = store
        self._sha256 = sha256
        self._part = part
        self._body = body
        self._flow = flow
        self._started = False
        super().__init__(None, part.status, headers)
        if part.status != 304:
            self.headers["content-length"] = str(part.stop - part.start)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._body and self._part.stop > self._part.start:
            await self._in_turn(scope, receive, send)
        else:
            await self._start(send)
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _start(self, send: Send) -> None:
        self._started = True
        await send(
            {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        )

    async def _in_turn(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.ensure_future(_disconnect(receive))
        try:
            await self._flow.begin(gone)
            try:
                await self._send_pieces(gone, send)
            finally:
                self._flow.end()
        except ServerError as error:
            if self._started:
                raise  # the answer is cut off: that alone tells its reader
            await error_response(error)(scope, receive, send)
        except ReaderGone:
            return
        finally:
            gone.cancel()

    async def _send_pieces(self, gone: asyncio.Future[None], send: Send) -> None:
        left, flow = self._part.stop - self._part.start, self._flow
        async for found in self._store.stream(self._sha256, self._part.start, self._part.stop):
            # not before: a store that does not answer is an error with a sentence
            if not self._started:
                await self._start(send)
            for piece in _cut(found, flow):
                await flow.pace(len(piece))
                # The ASGI server takes pieces for a client that has left without a word.
                if gone.done():
                    return
                left -= len(piece)
                await send({"type": "http.response.body", "body": piece, "more_body": left > 0})
                # a line that is lost takes everything at once: let the loop say so
                await asyncio.sleep(0)
                if gone.done() and left:
                    return
                flow.sent(len(piece))


def _cut(found: bytes | memoryview, flow: Flow) -> Iterator[bytes | memoryview]:
    start = 0
    while start < len(found):
        piece = found[start : start + flow.piece]
        start += len(piece)
        yield piece


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
