"""A policy: plain immutable values for the engine, and what a person may write in each place.

A field's annotation has the kind that its key is read by (`kinds.py`); `parse.py` has the rules
between fields. What was checked once is not checked again when it is read from the database.
Durations are in seconds, shares from 0 to 1.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated

from pydantic import Discriminator, Tag

from pilotwave_protocol.names import check_device, check_group, check_metric, check_model
from pilotwave_protocol.names import check_selector_key as check_key
from pilotwave_server.fields import SLUG
from pilotwave_server.rollouts.policies import kinds
from pilotwave_server.rollouts.policies.kinds import Either, Items, duration, named, share, whole

WEEK = 7 * 86_400
MOST_DEVICES = 100_000_000
NAME = kinds.matching(
    rf"(?=.{{1,64}}$){SLUG[1:-1]}",
    "a name of small letters and digits, joined by single '.', '_' or '-', at most 64 characters",
)
STATISTIC = kinds.matching(
    r"mean|p(?:[1-9][0-9]?)(?:\.[0-9])?", "`mean`, or a quantile as `p50`, `p95` or `p99.9`"
)
Alpha = Annotated[float, share(0.000001, 0.2)]
Slices = Annotated[tuple[str, ...], Items(named(check_key), most=8)]
Devices = Annotated[int | None, whole(1, MOST_DEVICES)]


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

    devices: Annotated[tuple[str, ...], Items(named(check_device), most=1000)] = ()
    selector: Annotated[str | None, kinds.SELECTOR] = None
    group: Annotated[str | None, named(check_group)] = None


@dataclass(frozen=True)
class InstallGate:
    """The share of devices on which the version fails (its install, self-test, switch, probation,
    or silence after the switch) is at most `max_failure_rate`."""

    name: Annotated[str, kinds.text(64)] = "install"
    max_failure_rate: Annotated[float, share(0.0001, 0.99)] = 0.05
    alpha: Alpha = 0.01
    slice_by: Slices = ()


@dataclass(frozen=True)
class MetricGate:
    """A live metric of the new version against the same group's devices on the old one.

    `statistic` is `mean` or a quantile as `p95`; `worse` is `higher` or `lower`; a relative change
    of up to `min_effect` is no failure. `min_devices` and `min_windows` are the least sample on
    the new version for a PASS. `alpha` bounds the chance of stopping a version that is no worse.
    """

    name: Annotated[str, kinds.text(64)]
    metric: Annotated[str, named(check_metric)]
    statistic: Annotated[str, STATISTIC] = "p95"
    worse: Annotated[str, kinds.word("higher", "lower")] = "higher"
    min_effect: Annotated[float, share(0, 10)] = 0.1
    min_devices: Annotated[int, whole(1, 1_000_000)] = 1
    min_windows: Annotated[int, whole(1, 1_000_000)] = 5
    alpha: Alpha = 0.01
    slice_by: Slices = ()


Gate = InstallGate | MetricGate


def _gate_tag(gate: object) -> str:
    has = "metric" in gate if isinstance(gate, dict) else isinstance(gate, MetricGate)
    return "metric" if has else "install"


# for what was stored: a metric gate that is broken shall not pass for an install gate
_StoredGate = Annotated[
    Annotated[MetricGate, Tag("metric")] | Annotated[InstallGate, Tag("install")],
    Discriminator(_gate_tag),
]


@dataclass(frozen=True)
class Wave:
    """One step. Exactly one of `canary`, `count`, `percent` (0 to 100) is set.

    `soak_s` is how long it must stay good after its minimum sample is there; `manual` waits for an
    operator to open the next one.
    """

    name: Annotated[str, kinds.text(64)]
    canary: Canary | None = None
    count: Devices = None
    percent: Annotated[float | None, kinds.percent(0.000001, 100)] = None
    soak_s: Annotated[int, duration()] = 0
    min_sample: Annotated[int, whole(1, MOST_DEVICES)] = 1
    manual: Annotated[bool, kinds.FLAG] = False
    gates: Annotated[
        tuple[_StoredGate, ...], Items(Either("metric", MetricGate, InstallGate), most=16)
    ] = ()


@dataclass(frozen=True)
class Pace:
    """How fast devices are let in. None or 0: no limit.

    `ramp_start` devices in flight at first, times `ramp_factor` each time as many became healthy;
    `min_available` is the share of the group that must not be in flight or failed; one device may
    be even so.
    """

    max_in_flight: Devices = None
    max_per_minute: Devices = None
    ramp_start: Devices = None
    ramp_factor: Annotated[float, kinds.number(1, 100)] = 2.0
    min_available: Annotated[float, share(0, 0.999999)] = 0.0

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

    cron: Annotated[str, kinds.CRON]
    duration_s: Annotated[int, duration(60, WEEK)]
    timezone: Annotated[str, kinds.ZONE] = kinds.DEVICE_ZONE


@dataclass(frozen=True)
class Conditions:
    """What must hold on the device before it changes. None: it does not matter."""

    power: Annotated[str | None, kinds.word("external")] = None
    battery_min: Annotated[int | None, kinds.WHOLE_PERCENT] = None
    network: Annotated[str | None, kinds.word("unmetered")] = None
    idle: Annotated[bool | None, kinds.FLAG] = None
    disk_free_mb: Annotated[int | None, whole(1, 100_000_000)] = None


@dataclass(frozen=True)
class Deadlines:
    """`silent_s`: a device that switched and then says nothing counts as failed. `lease_s`: a lease
    that was not used falls back. `unreached_s`: after so long without news of the devices that are
    left, the last wave counts as complete without them (None: it waits)."""

    silent_s: Annotated[int, duration(60)] = 1800
    lease_s: Annotated[int, duration(60)] = 3600
    unreached_s: Annotated[int | None, duration(60)] = None


@dataclass(frozen=True)
class Policy:
    """A recipe, complete and consistent. `together` are models that change in one with this one."""

    name: Annotated[str, NAME]
    waves: Annotated[tuple[Wave, ...], Items(Wave, most=100)]
    description: Annotated[str, kinds.text(512, empty=True)] = ""
    on_failure: Annotated[OnFailure, kinds.member(OnFailure)] = OnFailure.ROLLBACK
    pace: Pace = field(default_factory=Pace)
    windows: Annotated[tuple[Window, ...], Items(Window, most=8)] = ()
    conditions: Conditions = field(default_factory=Conditions)
    deadlines: Deadlines = field(default_factory=Deadlines)
    approval: Annotated[bool, kinds.FLAG] = False
    together: Annotated[tuple[str, ...], Items(named(check_model), most=16)] = ()

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
