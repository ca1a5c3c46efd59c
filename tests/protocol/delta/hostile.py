"""Deltas that lie: golden ones with bytes changed, checksums of the header made good again."""

from __future__ import annotations

import hashlib
import io
import random
import zlib
from types import ModuleType

from pilotwave_protocol.delta import HEADER_BYTES, Applier, Header
from pilotwave_protocol.errors import BadDelta

CRC_AT = HEADER_BYTES - 4


class Guarded(io.BytesIO):
    """An old file that says when something outside of it is read."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.size = len(data)

    def read(self, count: int | None = -1) -> bytes:
        if count is None or count < 0 or self.tell() + count > self.size:
            raise AssertionError(f"read {count} bytes at {self.tell()} of {self.size}")
        return super().read(count)


def mutated(delta: bytes, chance: random.Random) -> bytes:
    """Change a delta in one to four places; the header's checksum is right in most cases."""
    out = bytearray(delta)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(out)) if out else 0
        match chance.randrange(6):
            case 0:
                out[at : at + 1] = bytes((chance.randrange(256),))
            case 1:
                out[at : at + 1] = bytes((out[at] ^ 1 << chance.randrange(8),)) if out else b""
            case 2:
                del out[at : at + chance.randint(1, 40)]
            case 3:
                out[at:at] = chance.randbytes(chance.randint(1, 20))
            case 4:
                other = chance.randrange(len(out) or 1)
                out[at : at + 8] = out[other : other + 8]
            case _:
                value = chance.choice((b"\xff" * 9, b"\xff" * 8 + b"\x7f", b"\0" * 8, b"\x80" * 4))
                out[at : at + len(value)] = value
    if len(out) >= HEADER_BYTES and chance.random() < 0.9:
        out[:8] = delta[:8]
        out[CRC_AT:HEADER_BYTES] = zlib.crc32(out[:CRC_AT]).to_bytes(4, "little")
    return bytes(out)


def outcome(delta: bytes, old: bytes, new: bytes, math: ModuleType) -> bool:
    """Apply; False if it was refused. Anything but a refusal or the right file is a failure."""
    made = bytearray()
    limit = _declared(delta)

    def write(piece: bytes) -> None:
        made.extend(piece)
        if len(made) > limit:
            raise AssertionError(f"{len(made)} bytes were made, {limit} declared")

    try:
        header = Applier(io.BytesIO(delta), Guarded(old), write, math=math).run()
    except BadDelta:
        return False
    if bytes(made) != new and header.new_sha256 == _sha256(new):
        raise AssertionError("a wrong result was accepted")
    return True


def _declared(delta: bytes) -> int:
    try:
        return Header.parse(delta[:HEADER_BYTES]).new_size
    except BadDelta:
        return 0


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
