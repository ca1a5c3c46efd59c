"""What the processes' rows say: who lives, and since when devices were listened to. Pure.

A fleet is listened to as long as the host that last heard a device lives. When that one is gone,
devices may be talking to nobody: until another process hears one, no silence is theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

BEAT_S = 5.0
STALE = timedelta(seconds=4 * BEAT_S)
LATELY = timedelta(minutes=3)
"""What a process hears is noted once a minute for each device."""
KEPT = timedelta(days=7)
"""A host that is gone for so long does not come back."""


@dataclass(frozen=True)
class Process:
    """One row; `age` is how long ago it was seen."""

    id: str
    host: str
    age: timedelta
    listening_since: datetime
    heard_at: datetime | None

    @property
    def lives(self) -> bool:
        return self.age <= STALE


@dataclass(frozen=True)
class Fleet:
    """What all processes together are. `listening_since` None: devices may reach nobody. `first`:
    what one process does for all is this one's."""

    processes: int
    hosts: int
    listening_since: datetime | None
    first: bool = True


def read_fleet(rows: Sequence[Process], me: Process) -> Fleet:
    """The fleet, of which this process is one, whatever the rows say of it."""
    living = [row for row in rows if row.lives and row.id != me.id] + [me]
    return Fleet(
        processes=len(living),
        hosts=len({row.host for row in living}),
        listening_since=_listening(rows, living, me),
        first=me.id == min(row.id for row in living),
    )


def _listening(rows: Sequence[Process], living: Sequence[Process], me: Process) -> datetime | None:
    heard = [(row.heard_at, row) for row in [*rows, me] if row.heard_at is not None]
    if not heard:
        return me.listening_since
    last_at, last = max(heard, key=lambda found: found[0])
    reached = [
        row.listening_since
        for row in living
        # a process of that host took the place of one that ended: devices reach the host
        if row.host == last.host or (row.heard_at is not None and last_at - row.heard_at <= LATELY)
    ]
    return min(reached, default=None)
