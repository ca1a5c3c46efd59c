"""What the engine knows of one rollout when it decides: plain values, taken at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from pilotwave_server.rollouts.gates.verdict import Verdict
from pilotwave_server.rollouts.leases import DID_NOT, HEALTHY, IN_FLIGHT, SILENT
from pilotwave_server.rollouts.policies.policy import Policy
from pilotwave_server.rollouts.states import RolloutState


@dataclass(frozen=True)
class Moment:
    """Now, and since when this engine has heard devices without a break or a jump of its clock.

    No deadline runs while nobody listens: a device cannot be blamed for a server that was away.
    `check_in_s` is how often a device reports when nothing happens and its own interval is not
    known.
    """

    now: datetime
    listening_since: datetime
    check_in_s: int = 900

    def waited(self, since: datetime) -> float:
        """Return the seconds since then in which devices could be heard."""
        return (self.now - max(since, self.listening_since)).total_seconds()

    def silent_s(self, policy: Policy, every_s: int | None) -> int:
        """Return how long a device that reports so often (None: that is not known) may say nothing:
        never less than two of its reports."""
        return max(policy.deadlines.silent_s, 2 * (every_s or self.check_in_s))

    def before(self, seconds: float) -> datetime:
        return self.now - timedelta(seconds=seconds)


@dataclass(frozen=True)
class OpenWave:
    """The newest open wave. `told` is the verdict that was last written down for people."""

    index: int
    opened_at: datetime
    soaking_since: datetime | None = None
    told: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Picture:
    """One rollout. What is dear to count is None until `plan` asks for it (`actions.Measure`).

    `withheld` says why the version may no longer be offered. `counts` are devices by outcome, the
    last change among them was at `last_change`. `verdicts` are those of the open wave's gates that
    were not overruled. `idle_leases` counts leases over their deadline, `silent` are the intervals
    of the devices that are over theirs. `size` counts the devices that the open waves can reach,
    `left` those of them that have not settled. `check_in_s` is how often the slowest device reports
    that took the version, and is not silent.
    `still_on` counts devices that are told to leave the version and were not heard to have left
    it, `unheard` those that were not heard lately at all, `kept` those that keep it, with why.
    In a shadow wave a device that tries the version counts as healthy; the first one has done so
    since `shadow_since`, `comparing` devices have given an input to both versions, `compared` as
    many as the wave asks for. `overruled` are the gates that an operator did.
    """

    id: int
    name: str
    state: RolloutState
    generation: int
    policy: Policy
    model: str
    version: str
    group: str = ""
    start_at: datetime | None = None
    end_at: datetime | None = None
    withheld: str | None = None
    open: OpenWave | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    last_change: datetime | None = None
    verdicts: tuple[Verdict, ...] = ()
    idle_leases: int = 0
    silent: tuple[int | None, ...] = ()
    size: int | None = None
    left: int | None = None
    check_in_s: int | None = None
    still_on: int = 0
    unheard: int = 0
    kept: tuple[tuple[str, int], ...] = ()
    rolling_back_since: datetime | None = None
    shadow_since: datetime | None = None
    comparing: int = 0
    compared: int = 0
    overruled: frozenset[str] = frozenset()

    def count(self, *outcomes: str) -> int:
        """Return how many devices have one of these outcomes."""
        return sum(self.counts.get(outcome, 0) for outcome in outcomes)

    @property
    def in_shadow(self) -> bool:
        """Whether the open wave is a shadow wave."""
        return self.open is not None and self.policy.in_shadow(self.open.index)

    @property
    def failed(self) -> int:
        return self.count(*DID_NOT, SILENT)

    @property
    def settled(self) -> int:
        return self.failed + self.count(HEALTHY)

    @property
    def in_flight(self) -> int:
        return self.count(*IN_FLIGHT)

    def tally(self) -> dict[str, int]:
        """Return the counts as a decision's numbers."""
        return {"healthy": self.count(HEALTHY), "failed": self.failed, "in_flight": self.in_flight}
