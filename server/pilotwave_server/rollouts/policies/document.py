"""A policy as the engine reads it: plain immutable values. `parse.py` makes them of a text.

Durations are in seconds, shares from 0 to 1.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from enum import Enum


class OnFailure(str, Enum):
    """What a failed gate leads to."""

    ROLLBACK = "rollback"
    PAUSE = "pause"

    def __str__(self) -> str:
        return str(self.value)


@dataclass(frozen=True)
class Canary:
    """The devices of a canary wave: named, by selector over labels and facts, or a whole group.

    They are always taken from the rollout's own group. Exactly one of the three is set.
    """

    devices: tuple[str, ...] = ()
    selector: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class InstallGate:
    """The share of devices on which the version fails (its install, self-test, switch, probation,
    or silence after the switch) is at most `max_failure_rate`."""

    name: str = "install"
    max_failure_rate: float = 0.05
    alpha: float = 0.01
    slice_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class MetricGate:
    """A live metric of the new version against the same group's devices on the old one.

    `statistic` is `mean` or a quantile as `p95`; `worse` is `higher` or `lower`; a relative change
    of up to `min_effect` is no failure. `min_devices` and `min_windows` are the least sample on
    the new version for a PASS. `alpha` bounds the chance of stopping a version that is no worse.
    """

    name: str
    metric: str
    statistic: str = "p95"
    worse: str = "higher"
    min_effect: float = 0.1
    min_devices: int = 1
    min_windows: int = 5
    alpha: float = 0.01
    slice_by: tuple[str, ...] = ()


Gate = InstallGate | MetricGate


@dataclass(frozen=True)
class Wave:
    """One step. Exactly one of `canary`, `count`, `percent` (0 to 100) is set.

    `soak_s` is how long it must stay good after its minimum sample is there; `manual` waits for an
    operator to open the next one.
    """

    name: str
    canary: Canary | None = None
    count: int | None = None
    percent: float | None = None
    soak_s: int = 0
    min_sample: int = 1
    manual: bool = False
    gates: tuple[Gate, ...] = ()


@dataclass(frozen=True)
class Pace:
    """How fast devices are let in. None or 0: no limit.

    `ramp_start` devices in flight at first, times `ramp_factor` each time as many became healthy;
    `min_available` is the share of the group that must not be in flight or failed; one device may
    be even so.
    """

    max_in_flight: int | None = None
    max_per_minute: int | None = None
    ramp_start: int | None = None
    ramp_factor: float = 2.0
    min_available: float = 0.0

    @property
    def limits(self) -> bool:
        """Whether devices need a lease before they are offered the version."""
        return bool(
            self.max_in_flight or self.max_per_minute or self.ramp_start or self.min_available
        )


@dataclass(frozen=True)
class Window:
    """A time in which devices may change: begins by `cron`, lasts `duration_s`.

    `timezone` is an IANA name, or `device` for the device's own.
    """

    cron: str
    duration_s: int
    timezone: str = "device"


@dataclass(frozen=True)
class Conditions:
    """What must hold on the device before it changes. None: it does not matter."""

    power: str | None = None  # "external"
    battery_min: int | None = None  # percent
    network: str | None = None  # "unmetered"
    idle: bool | None = None
    disk_free_mb: int | None = None


@dataclass(frozen=True)
class Deadlines:
    """`silent_s`: a device that switched and then says nothing counts as failed. `lease_s`: a lease
    that was not used falls back. `unreached_s`: after so long without news of the devices that are
    left, the last wave counts as complete without them (None: it waits)."""

    silent_s: int = 1800
    lease_s: int = 3600
    unreached_s: int | None = None


@dataclass(frozen=True)
class Policy:
    """A recipe, complete and consistent. `together` are models that change in one with this one."""

    name: str
    waves: tuple[Wave, ...]
    description: str = ""
    on_failure: OnFailure = OnFailure.ROLLBACK
    pace: Pace = field(default_factory=Pace)
    windows: tuple[Window, ...] = ()
    conditions: Conditions = field(default_factory=Conditions)
    deadlines: Deadlines = field(default_factory=Deadlines)
    approval: bool = False
    together: tuple[str, ...] = ()

    @property
    def slice_keys(self) -> tuple[str, ...]:
        """The labels and facts that any of its gates is asked by."""
        return tuple(sorted({key for w in self.waves for g in w.gates for key in g.slice_by}))

    @property
    def asks(self) -> dict[str, tuple[str, ...]]:
        """The live metrics that any of its gates looks at, each with the statistics asked for."""
        found: dict[str, set[str]] = defaultdict(set)
        for wave in self.waves:
            for gate in wave.gates:
                if isinstance(gate, MetricGate):
                    found[gate.metric].add(gate.statistic)
        return {metric: tuple(sorted(asked)) for metric, asked in found.items()}
