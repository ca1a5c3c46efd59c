"""JSON bodies are strict before any route sees them: no repeated keys, no NaN, no lone surrogates,
no NUL, bounded depth. So none of it can reach a rule or the database, whoever wrote the route.
"""

from __future__ import annotations

from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.types import Message, Receive

from pilotwave_protocol import strictjson
from pilotwave_protocol.errors import BadJson
from pilotwave_server.errors import Invalid

# Checking more than this would hold up the polls of the event loop.
SMALL = 16 * 1024


class NotStrictJson(Invalid):
    code = "bad_json"


async def read_strict(receive: Receive) -> Receive:
    """Read a whole JSON body and check it; a `receive` that gives it again, or NotStrictJson."""
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return again(message, receive)
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            break
    raw = b"".join(parts)
    if len(raw) > SMALL:
        await run_in_threadpool(check, raw)
    else:
        check(raw)
    return again({"type": "http.request", "body": raw, "more_body": False}, receive)


def again(first: Message, receive: Receive) -> Receive:
    waiting = [first]

    async def receive_again() -> Message:
        return waiting.pop() if waiting else await receive()

    return receive_again


def check(raw: bytes) -> None:
    """NotStrictJson unless `raw` is empty or strict JSON without NUL."""
    if not raw:
        return
    try:
        document = strictjson.loads(raw, max_bytes=len(raw))
        if b"\\u0000" in raw:
            refuse_nul(document)
    except BadJson as error:
        raise NotStrictJson(f"the body is not strict JSON: {error}") from None


def refuse_nul(document: Any) -> None:
    """BadJson when any text in `document` holds NUL, which PostgreSQL cannot store."""
    waiting = [document]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            waiting += [*part.keys(), *part.values()]
        elif isinstance(part, list):
            waiting += part
        elif isinstance(part, str) and "\x00" in part:
            raise BadJson("expected text; got a NUL character")
