"""What the processes' rows say: who lives, since when devices were listened to, and whether all
have one blob store. Pure.

A fleet is listened to as long as the host that last heard a device lives. When that one is gone,
devices may be talking to nobody: until another process hears one, no silence is theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar

from pilotwave_server.errors import Conflict, SetupError

BEAT_S = 5.0
STALE = timedelta(seconds=4 * BEAT_S)
LATELY = timedelta(minutes=3)
"""What a process hears is noted once a minute for each device."""
KEPT = timedelta(days=7)
"""A host that is gone for so long does not come back."""
SHADOW_WAVES = "shadow_waves"
KNOWS = frozenset({SHADOW_WAVES})
"""What this release knows of that an older one would take for something else."""


class BlobsApart(SetupError):
    """Another host of the fleet has another blob store."""

    code = "blobs_apart"

    def __init__(self, store: str, host: str) -> None:
        super().__init__(
            f"this server keeps blobs in {store}, and the host {host} of the same fleet keeps them "
            "elsewhere: what is uploaded at one is missing at the other. Set PILOTWAVE_BLOBS to "
            "the same bucket on every host, or mount one folder as `blobs` in their data folders "
            "(docs/hosts.md)"
        )


class OlderHost(Conflict):
    """A host of an older release is at work, which would do what it was not asked to."""

    code: ClassVar[str] = "older_host"

    def __init__(self, host: str) -> None:
        super().__init__(
            f"a server process on the host {host} is of an older release, which would switch the "
            "devices of a shadow wave: install this release there and restart its server, or stop "
            f"it and wait {STALE.total_seconds():.0f} s"
        )


@dataclass(frozen=True)
class Process:
    """One row; `age` is how long ago it was seen."""

    id: str
    host: str
    age: timedelta
    listening_since: datetime
    heard_at: datetime | None
    blob_store: str | None = None
    knows: frozenset[str] = frozenset()

    @property
    def lives(self) -> bool:
        return self.age <= STALE


@dataclass(frozen=True)
class Fleet:
    """What all processes together are. `listening_since` None: devices may reach nobody. `first`:
    what one process does for all is this one's. `apart_from`: the host that has another blob store
    than this one, which is therefore of no use."""

    processes: int
    hosts: int
    listening_since: datetime | None
    first: bool = True
    apart_from: str | None = None


def read_fleet(rows: Sequence[Process], me: Process) -> Fleet:
    """The fleet, of which this process is one, whatever the rows say of it."""
    living = [row for row in rows if row.lives and row.id != me.id] + [me]
    return Fleet(
        processes=len(living),
        hosts=len({row.host for row in living}),
        listening_since=_listening(rows, living, me),
        first=me.id == min(row.id for row in living),
        apart_from=find_apart(living, me),
    )


def find_apart(living: Sequence[Process], me: Process) -> str | None:
    """The host of the process that comes first, if it has another blob store than `me`: so of
    hosts that start at once and share none, one goes on."""
    known = [row for row in (*living, me) if row.lives and row.blob_store]
    if me.blob_store is None or not known:
        return None
    first = min(known, key=lambda row: row.id)
    return first.host if first.blob_store != me.blob_store else None


def check_all_know(rows: Sequence[Process], word: str) -> None:
    """Raise `OlderHost` where a process that lives does not know of what `KNOWS` calls `word`."""
    hosts = sorted(row.host for row in rows if row.lives and word not in row.knows)
    if hosts:
        raise OlderHost(hosts[0])


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
