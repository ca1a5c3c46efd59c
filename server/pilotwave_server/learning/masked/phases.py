"""How a group goes on, and what it wants of a member. Pure.

    shares ── inputs ── answers ── done
       └────────┴──────────┴────── lost

A phase ends when all have sent that it waits for, or at its time with two thirds of the group. The
last one needs two thirds alone: no other answer says more.
"""

from __future__ import annotations

from enum import Enum
from types import MappingProxyType

from pilotwave_protocol.learning.masked.messages import MOST_ATTEMPTS
from pilotwave_protocol.learning.masked.step import Wants


class Phase(str, Enum):
    """What a group waits for, or how it ended."""

    SHARES = "shares"
    INPUTS = "inputs"
    ANSWERS = "answers"
    DONE = "done"
    LOST = "lost"


class Sent(str, Enum):
    """The last message of a member."""

    KEYS = "keys"
    SHARES = "shares"
    INPUT = "input"
    ANSWER = "answer"


TRANSITIONS = MappingProxyType(
    {
        Phase.SHARES: (Phase.INPUTS, Phase.LOST),
        Phase.INPUTS: (Phase.ANSWERS, Phase.LOST),
        Phase.ANSWERS: (Phase.DONE, Phase.LOST),
        Phase.DONE: (),
        Phase.LOST: (),
    }
)
GOING = tuple(phase for phase, after in TRANSITIONS.items() if after)
AWAITED = MappingProxyType(
    {Phase.SHARES: Sent.SHARES, Phase.INPUTS: Sent.INPUT, Phase.ANSWERS: Sent.ANSWER}
)
"""What a phase waits for."""
_ORDER = tuple(Sent)


def has_sent(member: Sent, message: Sent) -> bool:
    """Say whether a member has come as far as a message."""
    return _ORDER.index(member) >= _ORDER.index(message)


def before(message: Sent) -> Sent:
    """What a member must have sent before a message."""
    return _ORDER[_ORDER.index(message) - 1]


def next_phase(phase: Phase, *, asked: int, sent: int, threshold: int, over: bool) -> Phase:
    """Of the members, `asked` may send what the phase waits for, and `sent` have."""
    if not TRANSITIONS[phase]:
        return phase
    after, lost = TRANSITIONS[phase]
    if asked < threshold or (over and sent < threshold):
        return lost
    enough = threshold if phase is Phase.ANSWERS else asked
    return after if over or sent >= enough else phase


def wants_of(phase: Phase, sent: Sent, attempt: int) -> Wants:
    """What a member is to send next, or how it stands."""
    awaited = AWAITED.get(phase)
    if awaited is not None and sent is before(awaited):
        return Wants(awaited.value)
    if awaited is not None and has_sent(sent, awaited):
        return Wants.WAIT
    if sent is Sent.ANSWER or (phase is Phase.DONE and sent is Sent.INPUT):
        return Wants.OVER
    return Wants.LOST if attempt < MOST_ATTEMPTS else Wants.OVER
