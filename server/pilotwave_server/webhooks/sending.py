"""Call one address once: no redirect followed, one deadline for all, little of the answer read.

Only the status counts. A peer may be slow, endless or malformed; it costs a connection until the
deadline and no more.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Mapping
from typing import NamedTuple

import h11

from pilotwave_server.errors import ServerError
from pilotwave_server.webhooks.targets import Target, Targets, choose

MAX_HEAD = 16 << 10
CHUNK = 4096


class CallOutcome(NamedTuple):
    """What came of a call: a status, or why there is none. `ok` is any 2xx."""

    status: int | None
    error: str | None

    @property
    def ok(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


async def call(
    target: Target,
    body: bytes,
    headers: Mapping[str, str],
    *,
    allowed: Targets,
    timeout_s: float,
    tls: ssl.SSLContext,
) -> CallOutcome:
    """POST `body`. Never raises but for a cancellation."""
    try:
        status = await asyncio.wait_for(_call(target, body, headers, allowed, tls), timeout_s)
    except asyncio.TimeoutError:
        return CallOutcome(None, f"no answer within {timeout_s:g} s")
    except h11.RemoteProtocolError as error:
        return CallOutcome(None, f"the answer is not HTTP/1.1: {_printable(error)}")
    except ServerError as error:
        return CallOutcome(None, error.detail)
    except (OSError, ValueError) as error:
        return CallOutcome(None, f"no connection: {_printable(error)}")
    if 200 <= status < 300:
        return CallOutcome(status, None)
    if 300 <= status < 400:
        return CallOutcome(status, f"answered {status}: redirects are not followed")
    return CallOutcome(status, f"answered {status}, expected 2xx")


async def _call(
    target: Target,
    body: bytes,
    headers: Mapping[str, str],
    allowed: Targets,
    tls: ssl.SSLContext,
) -> int:
    address = choose(await _look_up(target), allowed)
    reader, writer = await asyncio.open_connection(
        address,
        target.port,
        ssl=tls if target.tls else None,
        server_hostname=target.host if target.tls else None,
        limit=MAX_HEAD,
    )
    try:
        return await _exchange(reader, writer, target, body, headers)
    finally:
        # not closed in good order: the rest of the answer, however long, is of no interest
        writer.transport.abort()


async def _look_up(target: Target) -> list[str]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


async def _exchange(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    target: Target,
    body: bytes,
    headers: Mapping[str, str],
) -> int:
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
    sent = {
        "Host": target.authority,
        "Content-Length": str(len(body)),
        "Connection": "close",
        **headers,
    }
    request = h11.Request(method="POST", target=target.path, headers=list(sent.items()))
    for part in (request, h11.Data(data=body), h11.EndOfMessage()):
        writer.write(connection.send(part) or b"")
    await writer.drain()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            data = await reader.read(CHUNK)
            if not data:
                raise h11.RemoteProtocolError("the connection ended before an answer")
            connection.receive_data(data)
        elif isinstance(event, h11.Response):
            return event.status_code


def _printable(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return "".join(c if c.isprintable() else " " for c in text)[:300]
