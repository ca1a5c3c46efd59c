"""What a plan says of who may see which numbers: each device's (`open`), or sums of groups alone.

With `masked` the server learns the sum over a group of `group` devices, and of none of them what it
sent (docs/learning.md says from whom that protects, and from whom not).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from pilotwave_protocol.fields import Fields

LEAST_GROUP = 4
"""Of fewer, those of a group that stand together know too much of the one that is left."""
MOST_GROUP = 16
"""Each member sends to each other: of more, messages grow beyond what is of use."""
USUAL_GROUP = 8


class Mode(str, Enum):
    """Whether the server sees each device's numbers."""

    OPEN = "open"
    MASKED = "masked"


@dataclass(frozen=True)
class Privacy:
    """The mode, and with `masked` how many devices a group has."""

    mode: Mode = Mode.OPEN
    group: int = 0

    @property
    def masked(self) -> bool:
        return self.mode is Mode.MASKED

    @property
    def threshold(self) -> int:
        """How many of a group must answer: two thirds, so that a server with fewer than a third of
        the members on its side is never told both secrets of a device."""
        return -(-2 * self.group // 3)


OPEN = Privacy()


def read_privacy(f: Fields | None) -> Privacy:
    """Read the field; a plan without it is open."""
    if f is None:
        return OPEN
    mode = f.one_of("mode", Mode)
    group = 0
    if mode is Mode.MASKED:
        group = f.integer("group", low=LEAST_GROUP, high=MOST_GROUP)
    f.done()
    return Privacy(mode, group)
