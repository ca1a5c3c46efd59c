"""A device's update: a small statement that the device signs, about the numbers that go with it.

On the wire it is the statement's envelope on one line, a line feed, the numbers, whose digest is in
the statement. Plan, round and device are too: an update counts for one round of one plan, and once.
"""

from __future__ import annotations

from dataclasses import dataclass

from pilotwave_protocol import names, strictjson
from pilotwave_protocol.errors import BadMessage
from pilotwave_protocol.learning.plan import MAX_EXAMPLES, MAX_ROUNDS
from pilotwave_protocol.messages.reading import open_payload

UPDATE_TYPE = "application/vnd.pilotwave.update.v1+json"
MAX_UPDATE_BYTES = 4 << 10
MAX_NUMBERS_BYTES = 8 << 20
"""More than the largest plan asks for."""
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
