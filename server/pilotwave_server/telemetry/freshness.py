"""Decide whether a well-signed check-in is new, or a copy of an old one. Pure.

A device counts its check-ins under a random name (`numbering`). Under the name of its last one, a
check-in is new if its number is higher. Under any other, its device is asked to say it again with a
challenge inside what it signs: the challenge is about what is stored at that moment, so it is good
once, and no number that is stored, however high, keeps a device out. An agent that knows of no
names is new if its number is higher than any such agent's before (docs/protocol.md, section 4).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

from pilotwave_protocol.fields import ROOM
from pilotwave_protocol.messages.check_in import CheckIn
from pilotwave_server.errors import Conflict


class StaleSeq(Conflict):
    """A check-in that is not newer than the last: replayed, or from a device that lost its state.

    It says itself again with the `challenge`, or, if it is older than challenges, goes on above
    `last_seq`.
    """

    code: ClassVar[str] = "stale_seq"


class Counted(Protocol):
    """What is stored of a device's numbers. `plain_seq` is the highest without a name, or before
    there was one."""

    @property
    def numbering(self) -> str: ...
    @property
    def last_seq(self) -> int: ...
    @property
    def plain_seq(self) -> int: ...


class Challenges(Protocol):
    """Makes challenges that this server alone can have made."""

    def make(self, device: str, generation: int, about: str) -> str:
        """Return a challenge about `about`, good for a short time."""
        ...

    def is_good(self, challenge: str, device: str, generation: int, about: str) -> bool:
        """Say whether it was made about this, not long ago."""
        ...


@dataclass(frozen=True)
class Fresh:
    """A check-in that is new. `anew`: its events and windows count from the beginning."""

    anew: bool
    plain_seq: int


def judge(
    stored: Counted, check_in: CheckIn, generation: int, challenges: Challenges
) -> Fresh | StaleSeq:
    """Return how a check-in is new, or the refusal that asks for another."""
    given = check_in.numbering or ""
    same = given == stored.numbering
    last = stored.last_seq if same else stored.plain_seq
    if not given:
        last = max(last, stored.plain_seq)
    about = f"{stored.numbering} {stored.last_seq}"
    if same or not given:
        fresh = check_in.seq > last
    else:
        fresh = check_in.challenge is not None and challenges.is_good(
            check_in.challenge, check_in.device, generation, about
        )
    if fresh:
        return Fresh(anew=not same, plain_seq=_plain_seq(stored, check_in))
    return StaleSeq(
        f"expected a seq above {last}, or the challenge with another numbering; got {check_in.seq}",
        last_seq=last,
        challenge=challenges.make(check_in.device, generation, about),
    )


def _plain_seq(stored: Counted, check_in: CheckIn) -> int:
    """What was sent without a name, and held back on its way, is not to count later: numbers go on
    rising when a device takes its first name."""
    before = stored.plain_seq if stored.numbering else max(stored.plain_seq, stored.last_seq)
    if check_in.numbering is not None and check_in.seq >= ROOM:
        return before
    return max(before, check_in.seq)
