"""A blob as an HTTP response: whole, in part, or only its headers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from pilotwave_server.blobs.port import BlobMissing, BlobStore
from pilotwave_server.blobs.ranges import Part, choose_part

# The name is the content: nothing under it can ever change.
IMMUTABLE = "public, max-age=31536000, immutable"


def blob_response(
    store: BlobStore, sha256: str, *, headers: Mapping[str, str], body: bool
) -> Response:
    """The answer to GET (or HEAD, without `body`) with these request headers, or BlobMissing."""
    size = store.size(sha256)
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
    return BlobResponse(store, sha256, part, answer, body=body)


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
    ) -> None:
        self._store = store
        self._sha256 = sha256
        self._part = part
        self._body = body
        super().__init__(None, part.status, headers)
        if part.status != 304:
            self.headers["content-length"] = str(part.stop - part.start)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send(
            {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        )
        if self._body and self._part.stop > self._part.start:
            await self._send_pieces(receive, send)
        else:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_pieces(self, receive: Receive, send: Send) -> None:
        gone = asyncio.ensure_future(_disconnect(receive))
        left = self._part.stop - self._part.start
        try:
            async for piece in self._store.stream(self._sha256, self._part.start, self._part.stop):
                # The ASGI server takes pieces for a client that has left without a word.
                if gone.done():
                    return
                left -= len(piece)
                await send({"type": "http.response.body", "body": piece, "more_body": left > 0})
        finally:
            gone.cancel()


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
