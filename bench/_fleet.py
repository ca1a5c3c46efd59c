"""Many enrolled devices at once, and a small raw HTTP/1.1 client to speak for them.

The devices are written to the database as enrolment would have left them, because enrolling each
over HTTP is not what is measured; from there on everything goes over HTTP.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import insert

from pilotwave_protocol import dsse
from pilotwave_server.db import Database, next_revision
from pilotwave_server.device_api.tokens import DeviceTokens
from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.keystore.folder import FolderKeys

FACTS = {
    "arch": "aarch64",
    "os": "linux",
    "cpu_count": 4,
    "memory_mb": 2048,
    "runtime.onnxruntime": "1.23.2",
    "hw": "orin",
    "agent": "0.1.0",
}


def add_devices(data: Path, count: int, keys: Sequence[Ed25519PrivateKey] = ()) -> list[str]:
    """Write `count` enrolled devices to the SQLite database in a data folder; return their names.

    Only the devices for which a key is given can check in.
    """
    db = Database(f"sqlite:///{data.absolute() / 'pilotwave.db'}")
    now = datetime.now(timezone.utc)
    names = [f"dev-{n:07d}" for n in range(count)]
    with db.write() as session:
        revision = next_revision(session)
        rows = []
        for n, name in enumerate(names):
            public = dsse.raw_public(keys[n].public_key()).hex() if n < len(keys) else f"{n:064x}"
            rows.append(
                {
                    "name": name,
                    "public_key": public,
                    "state": "enrolled",
                    "revision": revision,
                    "labels": {"site": f"site-{n % 50}"},
                    "facts": FACTS,
                    "created_at": now,
                    "enrolled_at": now,
                    "attempts": {},
                }
            )
            if len(rows) == 5000 or n == count - 1:
                session.execute(insert(DeviceRow), rows)
                rows = []
    db.close()
    return names


def read_tokens(key_file: Path, names: Sequence[str], *, life_s: int = 3600) -> list[str]:
    """Return a read token for each device, made with the server's own token key."""
    tokens = DeviceTokens(FolderKeys(key_file.parent))
    expires = int(time.time()) + life_s
    return [tokens.issue(name, 1, expires=expires) for name in names]


class Answer:
    """Status and headers (small letters) of one answer, and its body."""

    def __init__(self, status: int, headers: dict[bytes, bytes], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
) -> Answer:
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head[:-4].split(b"\r\n")
    status = int(first.split(b" ", 2)[1])
    headers = {}
    for line in lines:
        name, _, value = line.partition(b":")
        headers[name.strip().lower()] = value.strip()
    length = int(headers.get(b"content-length", b"0")) if status != 304 else 0
    return Answer(status, headers, await reader.readexactly(length) if length else b"")


def ask_all(
    port: int,
    requests: Sequence[bytes],
    take: Callable[[int, Answer], None],
    *,
    connections: int = 16,
) -> float:
    """Send every request over a few kept connections; returns the seconds it took."""

    async def lane(numbers: range) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for n in numbers:
            take(n, await _exchange(reader, writer, requests[n]))
        writer.close()

    async def everything() -> float:
        started = time.perf_counter()
        lanes = (lane(range(c, len(requests), connections)) for c in range(connections))
        await asyncio.gather(*lanes)
        return time.perf_counter() - started

    return asyncio.run(everything())
