"""What gates are judged by: plain values, gathered by `rollouts/evidence.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

Slice = tuple[str, str]
"""A label or fact, and its value: `("board", "jetson-nano")`, `("fact.board", "jetson-nano")`."""

BY_FACT = "fact."
"""Begins the key of a slice that its devices themselves say they are in."""


def may_decide(part: Slice, devices: int, of: int) -> bool:
    """Say whether a slice of so many devices may end a rollout alone. One that devices put
    themselves into may not if it is less than a quarter of them: they could all be lying."""
    return not part[0].startswith(BY_FACT) or 4 * devices >= of


def asks_a_person(part: Slice, told: str) -> str:
    """Return the sentence of a slice that shows a failure and may not decide it."""
    return (
        f"{told}. Less than a quarter of all devices report {part[0]}={part[1]}, and they report "
        "it themselves, so a person has to decide"
    )


@dataclass(frozen=True)
class Outcomes:
    """How many devices there are of each outcome.

    `failed` counts those that went back too; `under_way` those that began and have not settled
    (they hold a lease, fetch, test, or are in probation).
    """

    healthy: int = 0
    failed: int = 0
    silent: int = 0
    under_way: int = 0

    @property
    def bad(self) -> int:
        return self.failed + self.silent

    @property
    def settled(self) -> int:
        return self.healthy + self.bad

    @property
    def begun(self) -> int:
        return self.settled + self.under_way


class Sample(NamedTuple):
    """One window of one device's metric. `reference` is the device's figure on the version it had
    before (on its present one so far, for a device of the old arm), where there is one. `at` is
    when the window ended, in seconds since 1970, `seconds` how long it is, `calls` how many calls
    it holds."""

    device: int
    new: bool
    value: float
    reference: float | None
    slices: Mapping[str, str] = {}
    at: float = 0.0
    seconds: float = 0.0
    calls: int = 0


@dataclass(frozen=True)
class Evidence:
    """All that is known of a rollout at one moment.

    `reasons` are the devices' own words for what failed, with how many gave each. `samples` are in
    the order in which they came, by series ("latency_ms p95"). `quiet_s` is how long ago an outcome
    changed last, `in_use_s` how long ago the first device took the version (None: none has);
    `patience_s` is how long a device may take to say something. `took` devices run the version by
    what they report; `heard_s` is, by series, how long ago the first window of the new version
    came, and `listen_s` how long the others are given to be heard too.

    In a shadow wave the devices that hold the candidate are those that took it, `samples` are the
    windows of `pilotwave_protocol.shadow`, all of them of the new version, and `min_calls` is how
    many calls a device compares before it counts.
    """

    outcomes: Outcomes = Outcomes()
    slices: Mapping[Slice, Outcomes] = field(default_factory=dict)
    reasons: Mapping[str, int] = field(default_factory=dict)
    samples: Mapping[str, Sequence[Sample]] = field(default_factory=dict)
    quiet_s: float = 0.0
    in_use_s: float | None = None
    patience_s: float = 1800.0
    took: int = 0
    heard_s: Mapping[str, float] = field(default_factory=dict)
    listen_s: float = 0.0
    min_calls: int = 0

    def heard(self, name: str, *, devices: int, agree: int = 0) -> bool:
        """Say whether those that spoke first of a series are not all that was heard: enough of the
        devices that took the version, or as many as the others had time for; or so many `agree`
        that they are half of all of them."""
        if agree and 2 * agree >= self.took:
            return True
        return 4 * devices >= 3 * self.took or self.heard_s.get(name, 0.0) >= self.listen_s


def series(metric: str, statistic: str) -> str:
    """Return the name under which a metric's windows are kept for gates of this statistic."""
    return f"{metric} {statistic}"
