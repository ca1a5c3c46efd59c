"""What reading each payload and each reply has in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pilotwave_protocol import strictjson
from pilotwave_protocol.errors import BadJson, BadMessage
from pilotwave_protocol.fields import Fields

MAX_REPLY_BYTES = 16 << 10
M = TypeVar("M")


def open_payload(payload: bytes, max_bytes: int, schema: str) -> Fields:
    """Return the fields of a signed payload of this schema, or raise `BadMessage`."""
    try:
        f = Fields(strictjson.loads(payload, max_bytes=max_bytes, max_depth=8), "", BadMessage)
    except BadJson as e:
        raise BadMessage(f"message: {e}") from e
    if f.raw("schema") != schema:
        raise f.fail("schema", schema, f.raw("schema"))
    return f


def read_reply(raw: bytes, read: Callable[[Fields], M]) -> M:
    """Read a plain reply, or raise `BadMessage`."""
    try:
        f = Fields(strictjson.loads(raw, max_bytes=MAX_REPLY_BYTES, max_depth=4), "", BadMessage)
    except BadJson as e:
        raise BadMessage(f"reply: {e}") from e
    # unknown fields are let pass here: a newer server may say more to an older device
    return read(f)


def read_versions(f: Fields) -> dict[str, int]:
    """Read the versions of the TUF documents, 0 for one that is not named."""
    versions = {role: f.integer(role, default=0) for role in ("root", "timestamp", "snapshot")}
    f.done()
    return versions
