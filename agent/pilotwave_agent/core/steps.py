"""What a device can do next, and what is looked at to decide it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pilotwave_agent.core.records import Record
from pilotwave_protocol.messages.check_in import Installed


@dataclass(frozen=True)
class Moment:
    """Now: `wall` in epoch seconds (never below the time floor), `uptime` in seconds of `boot`."""

    wall: float
    uptime: float
    boot: str


@dataclass(frozen=True)
class Rules:
    """Probation: how long (seconds), how often it is probed, how many probes in a row may fail."""

    probation_s: float = 60.0
    interval_s: float = 10.0
    failures: int = 3
    boots: int = 3


@dataclass(frozen=True)
class Memo:
    """What one process knows that need not outlive it.

    `parked` models have met a "no" that only time or the server can change; `probed` says when
    (uptime) each model was last probed, `asked` when its application was last asked whether it has
    taken the candidate, `fetched` when a fetch of it ended last: several are fetched in turn.
    `later` are the models whose variants cannot be compared now.
    """

    parked: frozenset[str] = frozenset()
    probed: Mapping[str, float] = field(default_factory=dict)
    asked: Mapping[str, float] = field(default_factory=dict)
    fetched: Mapping[str, float] = field(default_factory=dict)
    later: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Move:
    """Journal this record; nothing else is to be done."""

    record: Record


@dataclass(frozen=True)
class Fetch:
    """Bring the candidate's files into the blob store; break off after `budget_s` seconds."""

    model: str
    budget_s: float | None = None


@dataclass(frozen=True)
class Stage:
    """Build the candidate's folder from blobs and prove it."""

    model: str


@dataclass(frozen=True)
class Trial:
    """Run the candidate's self-test."""

    model: str


@dataclass(frozen=True)
class Switch:
    """Make the candidate current and tell the application."""

    model: str


@dataclass(frozen=True)
class Confirm:
    """Ask whether the application has taken the candidate; `last` when its time is over."""

    model: str
    last: bool


@dataclass(frozen=True)
class Probe:
    """Ask whether the current version is well; `last` when probation would end with a pass."""

    model: str
    last: bool


@dataclass(frozen=True)
class Restore:
    """Make the first intact version of `ways` current and tell the application."""

    model: str
    ways: tuple[Installed, ...]


@dataclass(frozen=True)
class Remove:
    """Tell the application that a model goes, and take it off the device."""

    model: str


@dataclass(frozen=True)
class ClearAway:
    """Remove the links and files of a model that was taken off."""

    model: str


@dataclass(frozen=True)
class Compare:
    """Measure variants of what the model is ordered to run, beside each other."""

    model: str


@dataclass(frozen=True)
class Wait:
    """Nothing to do for so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Rest:
    """Nothing to do until the world changes."""


Step = (
    Move
    | Fetch
    | Stage
    | Trial
    | Switch
    | Confirm
    | Probe
    | Restore
    | Remove
    | ClearAway
    | Compare
    | Wait
    | Rest
)
