"""A device's word that it takes no part in a round, and why: one of a few words, and no text.

How many examples it has is told in steps, so that from one statement to the next nobody learns
that a single one was added.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from pilotwave_protocol import names, strictjson
from pilotwave_protocol.errors import BadMessage
from pilotwave_protocol.learning.plan import MAX_ROUNDS
from pilotwave_protocol.messages.reading import open_payload

DECLINE_TYPE = "application/vnd.pilotwave.decline.v1+json"
MAX_DECLINE_BYTES = 4 << 10
STEPS = (0, 1, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000)
_SCHEMA = "pilotwave/decline/1"


class Why(str, Enum):
    """Why a device takes no part."""

    TOO_FEW_EXAMPLES = "too_few_examples"
    OTHER_VERSION = "other_version"
    PLAN_NOT_BELIEVED = "plan_not_believed"
    CHILD_FAILED = "child_failed"
    TIMED_OUT = "timed_out"
    OUT_OF_MEMORY = "out_of_memory"
    OVER = "over"

    def __str__(self) -> str:
        return str(self.value)


FAILURES = frozenset({Why.CHILD_FAILED, Why.TIMED_OUT, Why.OUT_OF_MEMORY})
"""Those that the plan or the model may be blamed for."""


@dataclass(frozen=True)
class Decline:
    """`plan` is the plan's digest; `examples` the step below what the device has, with
    TOO_FEW_EXAMPLES alone."""

    fleet: str
    device: str
    model: str
    plan: str
    round: int
    why: Why
    examples: int | None = None

    def to_bytes(self) -> bytes:
        """Write the payload that is signed."""
        return strictjson.dumps({"schema": _SCHEMA, **vars(self), "why": self.why.value})


def step_below(examples: int) -> int:
    """The largest step that is not above a number of examples."""
    return max(step for step in STEPS if step <= examples)


def parse_decline(payload: bytes) -> Decline:
    """Read the statement, or raise `BadMessage`."""
    f = open_payload(payload, MAX_DECLINE_BYTES, _SCHEMA)
    why, examples = f.one_of("why", Why), f.raw("examples")
    if examples is not None:
        examples = f.integer("examples")
    found = Decline(
        fleet=f.named("fleet", names.check_fleet),
        device=f.named("device", names.check_device),
        model=f.named("model", names.check_model),
        plan=f.named("plan", names.check_sha256),
        round=f.integer("round", low=1, high=MAX_ROUNDS),
        why=why,
        examples=examples,
    )
    f.done()
    fits = examples in STEPS if why is Why.TOO_FEW_EXAMPLES else examples is None
    if not fits:
        raise BadMessage("decline: expected a step of examples with too_few_examples, and no other")
    return found
