"""A device's update: a small statement that the device signs, about the numbers that go with it.

On the wire it is the statement's envelope on one line, a line feed, the numbers, whose digest is in
the statement. Plan, round and device are too: an update counts for one round of one plan, and once.
Over a line that breaks, the envelope goes first and the numbers follow in pieces.
"""

from __future__ import annotations

from dataclasses import dataclass

from pilotwave_protocol import names, strictjson
from pilotwave_protocol.errors import BadJson, BadMessage
from pilotwave_protocol.fields import Fields
from pilotwave_protocol.learning.plan import MAX_EXAMPLES, MAX_ROUNDS
from pilotwave_protocol.messages.reading import open_payload

UPDATE_TYPE = "application/vnd.pilotwave.update.v1+json"
MAX_UPDATE_BYTES = 4 << 10
MAX_NUMBERS_BYTES = 8 << 20
"""More than the largest plan asks for."""
PIECE_BYTES = 64 << 10
"""What is sent anew where a line breaks. Each piece but the last has this size, so that nobody has
a server keep thousands of small ones."""
MAX_PIECE_HEAD_BYTES = 256
_SCHEMA = "pilotwave/update/1"


@dataclass(frozen=True)
class Update:
    """`plan` is the digest of the plan as it was signed, `numbers` that of `size` bytes."""

    fleet: str
    device: str
    model: str
    plan: str
    round: int
    examples: int
    numbers: str
    size: int

    def to_bytes(self) -> bytes:
        """Write the payload that is signed."""
        return strictjson.dumps({"schema": _SCHEMA, **vars(self)})


def join_update(envelope: bytes, numbers: bytes) -> bytes:
    """Write an update's two parts as one."""
    return envelope + b"\n" + numbers


def split_update(raw: bytes) -> tuple[bytes, bytes]:
    """Return the envelope of an update, and its numbers."""
    envelope, _, numbers = raw.partition(b"\n")
    if not 0 < len(numbers) <= MAX_NUMBERS_BYTES:
        limit = f"1 to {MAX_NUMBERS_BYTES} bytes of numbers after the first line"
        raise BadMessage(f"update: expected {limit}; got {len(numbers)}")
    return envelope, numbers


def parse_update(payload: bytes) -> Update:
    """Read an update's statement, or raise `BadMessage`."""
    f = open_payload(payload, MAX_UPDATE_BYTES, _SCHEMA)
    found = Update(
        fleet=f.named("fleet", names.check_fleet),
        device=f.named("device", names.check_device),
        model=f.named("model", names.check_model),
        plan=f.named("plan", names.check_sha256),
        round=f.integer("round", low=1, high=MAX_ROUNDS),
        examples=f.integer("examples", low=1, high=MAX_EXAMPLES),
        numbers=f.named("numbers", names.check_sha256),
        size=f.integer("size", low=4, high=MAX_NUMBERS_BYTES),
    )
    f.done()
    return found


@dataclass(frozen=True)
class Piece:
    """Some of the numbers whose digest is `numbers`: those from `offset` on."""

    numbers: str
    offset: int
    content: bytes


def join_piece(piece: Piece) -> bytes:
    """Write a piece as it travels: what it is on one line, a line feed, its bytes."""
    head = strictjson.dumps({"numbers": piece.numbers, "offset": piece.offset})
    return head + b"\n" + piece.content


def split_piece(raw: bytes) -> Piece:
    """Read a piece, or raise `BadMessage`."""
    head, _, content = raw.partition(b"\n")
    try:
        f = Fields(strictjson.loads(head, max_bytes=MAX_PIECE_HEAD_BYTES), "piece", BadMessage)
    except BadJson as error:
        raise BadMessage(f"piece: {error}") from error
    numbers = f.named("numbers", names.check_sha256)
    offset = f.integer("offset", high=MAX_NUMBERS_BYTES)
    f.done()
    if not 0 < len(content) <= PIECE_BYTES:
        raise BadMessage(f"piece: expected 1 to {PIECE_BYTES} bytes; got {len(content)}")
    return Piece(numbers, offset, content)
