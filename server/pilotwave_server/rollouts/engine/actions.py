"""What the engine may do with a rollout. A `PlannedStep` changes it and is taken once, by
generation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pilotwave_server.rollouts.gates.verdict import Verdict


@dataclass(frozen=True)
class PlannedStep:
    """A step from the generation that it was planned at, with what people are told of it.
    `judged` are the verdicts that led to it, as plain JSON, which the open wave keeps."""

    rollout: int
    generation: int
    sentence: str
    verdict: Verdict | None = None
    numbers: Mapping[str, Any] = field(default_factory=dict)
    judged: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Start(PlannedStep):
    """The scheduled time has come."""


@dataclass(frozen=True)
class Abort(PlannedStep):
    """It never started and cannot any more."""


@dataclass(frozen=True)
class OpenNext(PlannedStep):
    """Open wave `wave`, from 0. `threshold` spares measuring it with the database locked."""

    wave: int = 0
    threshold: int | None = None


@dataclass(frozen=True)
class Pause(PlannedStep):
    """Offer it to no further device until an operator says more."""


@dataclass(frozen=True)
class RollBack(PlannedStep):
    """Send its devices back and quarantine the version for the group."""


@dataclass(frozen=True)
class EndRollback(PlannedStep):
    """Its devices are back."""


@dataclass(frozen=True)
class Complete(PlannedStep):
    """The version becomes the group's baseline."""


@dataclass(frozen=True)
class ExpireLeases:
    """Take back the leases that were given, and not used, `before` or in a future that is none."""

    rollout: int
    before: datetime


@dataclass(frozen=True)
class CallSilent:
    """Call devices silent that switched, and were last heard, `before`: of those that report every
    `every_s` seconds (None: that is not known)."""

    rollout: int
    before: datetime
    every_s: int | None


@dataclass(frozen=True)
class Soak:
    """The wave's outcomes suffice since `since`; None: they do not any more."""

    rollout: int
    wave: int
    since: datetime | None


@dataclass(frozen=True)
class Tell:
    """Write down for people what the wave waits for, if `instead_of` is still what they read."""

    rollout: int
    wave: int
    verdict: Mapping[str, Any]
    instead_of: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Measure:
    """Count the devices that the open waves can reach (`size`), or those `left` of them; or find
    how often the slowest reports that took the version (`check_in_s`)."""

    what: str


Action = PlannedStep | ExpireLeases | CallSilent | Soak | Tell | Measure
