"""The yardstick: a bare ASGI app on the same uvicorn, answering 304 with two headers."""

from __future__ import annotations

import sys
from typing import Any

import uvicorn

START = {
    "type": "http.response.start",
    "status": 304,
    "headers": [(b"etag", b'"0123456789abcdef"'), (b"pilotwave-tuf", b"1.1")],
}
END = {"type": "http.response.body"}


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await send(START)
        await send(END)


if __name__ == "__main__":
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="error",
        server_header=False,
        date_header=False,
        lifespan="off",
    )
