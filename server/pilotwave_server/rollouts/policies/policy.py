"""A policy: plain immutable values for the engine, and what a person may write in each place.

A field's annotation has the kind that its key is read by (`kinds.py`), `rules` what has to hold
between fields. What was checked once is not checked again when it is read from the database.
Durations are in seconds, shares from 0 to 1.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated, Any, ClassVar

from pydantic import Discriminator, Tag

from pilotwave_protocol.names import check_device, check_group, check_metric, check_model
from pilotwave_protocol.names import check_selector_key as check_key
from pilotwave_protocol.shadow import DISAGREE, ERROR
from pilotwave_server.fields import SLUG
from pilotwave_server.rollouts.policies import kinds
from pilotwave_server.rollouts.policies.choose import Choose
from pilotwave_server.rollouts.policies.faults import TAGS, Told
from pilotwave_server.rollouts.policies.kinds import duration, items, named, share, whole
from pilotwave_server.rollouts.policies.paired import LIMITS, PairedGate
from pilotwave_server.rollouts.policies.read_part import PolicyPart, listed, one_of, twice
from pilotwave_server.rollouts.policies.shadow import ShadowPart, faults_of_order

WEEK = 7 * 86_400
MOST_DEVICES = 100_000_000
NAME = kinds.matching(
    rf"(?=.{{1,64}}$){SLUG[1:-1]}",
    "a name of small letters and digits, joined by single '.', '_' or '-', at most 64 characters",
)
STATISTIC = kinds.matching(
    r"mean|p(?:[1-9][0-9]?)(?:\.[0-9])?", "`mean`, or a quantile as `p50`, `p95` or `p99.9`"
)
Alpha = Annotated[float, kinds.ALPHA]
Slices = Annotated[tuple[Annotated[str, named(check_key)], ...], items(8)]
SIZES = {"percent": kinds.percent(0.000001, 100), "count": whole(1, MOST_DEVICES)}
Devices = Annotated[int | None, SIZES["count"]]
Percent = Annotated[float | None, SIZES["percent"]]


class OnFailure(str, Enum):
    """What a failed gate leads to."""

    ROLLBACK = "rollback"
    PAUSE = "pause"

    def __str__(self) -> str:
        return str(self.value)


@dataclass(frozen=True)
class Canary(PolicyPart):
    """The devices of a canary wave: named, by selector over labels and facts, or a whole group.

    They are always taken from the rollout's own group. Exactly one of the three is set.
    """

    devices: Annotated[tuple[Annotated[str, named(check_device)], ...], items(1000)] = ()
    selector: Annotated[str | None, kinds.SELECTOR] = None
    group: Annotated[str | None, named(check_group)] = None

    @classmethod
    def rules(cls, given: dict[str, Any]) -> Iterator[Told]:
        kinds = ("devices", "selector", "group")
        # an empty list beside another kind is how the server writes that there is none
        yield from one_of([kind for kind in kinds if given.get(kind)], *kinds)


@dataclass(frozen=True)
class InstallGate(PolicyPart):
    """The share of devices on which the version fails (its install, self-test, switch, probation,
    or silence after the switch) is at most `max_failure_rate`."""

    also: ClassVar = ("metric",)
    name: Annotated[str, kinds.text(64)] = "install"
    max_failure_rate: Annotated[float, share(0.0001, 0.99)] = 0.05
    alpha: Alpha = 0.01
    slice_by: Slices = ()


@dataclass(frozen=True)
class MetricGate(PolicyPart):
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

    @classmethod
    def rules(cls, given: dict[str, Any]) -> Iterator[Told]:
        given.setdefault("name", _gate_name(given))
        yield from ()


Gate = InstallGate | MetricGate | PairedGate


def _gate_tag(gate: object) -> str:
    given = gate if isinstance(gate, dict) else getattr(gate, "__dict__", {})
    if given.get("metric") is not None:
        return TAGS[0]
    return TAGS[2] if any(given.get(limit) is not None for limit in LIMITS) else TAGS[1]


def _gate_name(given: dict[str, Any]) -> Any:
    match _gate_tag(given):
        case "<metric>":
            name = f"{str(given.get('metric'))[:50]} {given.get('statistic') or 'p95'}"
        case "<paired>":
            name = next(limit for limit in LIMITS if given.get(limit) is not None)
        case _:
            name = "install"
    return given.get("name") or name


# a metric gate that is broken shall not pass for an install gate
_OneGate = Annotated[
    Annotated[MetricGate, Tag(TAGS[0])]
    | Annotated[InstallGate, Tag(TAGS[1])]
    | Annotated[PairedGate, Tag(TAGS[2])],
    Discriminator(_gate_tag),
]


@dataclass(frozen=True)
class Wave(PolicyPart):
    """One step. Exactly one of `canary`, `count`, `percent` (0 to 100) is set.

    With `shadow`, its devices try the version beside the one that serves and switch nothing.
    `soak_s` is how long it must stay good after its minimum sample is there; `manual` waits for an
    operator to open the next one.
    """

    name: Annotated[str, kinds.text(64)]
    canary: Canary | None = None
    count: Devices = None
    percent: Percent = None
    shadow: ShadowPart | None = None
    soak_s: Annotated[int, duration()] = 0
    min_sample: Annotated[int, whole(1, MOST_DEVICES)] = 1
    manual: Annotated[bool, kinds.FLAG] = False
    gates: Annotated[tuple[_OneGate, ...], items(16)] = ()

    @classmethod
    def rules(cls, given: dict[str, Any]) -> Iterator[Told]:
        sizes = ("canary", "count", "percent")
        yield from one_of([key for key in sizes if key in given], *sizes)
        given.setdefault("name", wave_name(given))
        yield from twice(given, "gates", _gate_name)
        yield from _misplaced(given)


def _misplaced(given: dict[str, Any]) -> Iterator[Told]:
    """Yield each gate that the wave cannot answer: only in a shadow a device has both versions, and
    only out of it devices have one or the other."""
    for n, gate in enumerate(listed(given, "gates")):
        tag = _gate_tag(gate) if isinstance(gate, dict) else ""
        if tag == "<paired>" and "shadow" not in given:
            told = "expected `shadow` in its wave: only there both versions see the same calls"
            yield ("gates", n), told
        if tag == "<metric>" and "shadow" in given:
            told = f"expected one of {', '.join(LIMITS)}; a shadow wave has no live metrics to gate"
            yield ("gates", n), told


def size_in(wave: Any, key: str) -> Any:
    """The size of a wave by `percent` or `count`, where it is given so and can be read."""
    return SIZES[key].meaning(wave.get(key)) if isinstance(wave, dict) else None


def wave_name(given: dict[str, Any]) -> Any:
    """The name of a wave: its own, or after its size."""
    percent, count = (size_in(given, key) for key in SIZES)
    size = f"{percent:g}%" if percent is not None else "canary"
    size = size if count is None else f"{count} devices"
    return given.get("name") or (f"shadow {size}" if "shadow" in given else size)


@dataclass(frozen=True)
class Pace(PolicyPart):
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

    @classmethod
    def rules(cls, given: dict[str, Any]) -> Iterator[Told]:
        if given.get("ramp_factor", 2) != 2 and "ramp_start" not in given:
            yield ("ramp_factor",), "expected `ramp_start` beside it"

    @property
    def limits(self) -> bool:
        """Whether devices need a lease before they are offered the version."""
        return bool(
            self.max_in_flight or self.max_per_minute or self.ramp_start or self.min_available
        )


@dataclass(frozen=True)
class Window(PolicyPart):
    """A time in which devices may change: begins by `cron`, lasts `duration_s`.

    `timezone` is an IANA name, or `device` for the device's own.
    """

    cron: Annotated[str, kinds.CRON]
    duration_s: Annotated[int, duration(60, WEEK)]
    timezone: Annotated[str, kinds.ZONE] = kinds.DEVICE_ZONE


@dataclass(frozen=True)
class Conditions(PolicyPart):
    """What must hold on the device before it changes. None: it does not matter."""

    power: Annotated[str | None, kinds.word("external")] = None
    battery_min: Annotated[int | None, kinds.WHOLE_PERCENT] = None
    network: Annotated[str | None, kinds.word("unmetered")] = None
    idle: Annotated[bool | None, kinds.FLAG] = None
    disk_free_mb: Annotated[int | None, whole(1, 100_000_000)] = None


def waits_for(conditions: object, windows: Sequence[Window]) -> dict[str, Any]:
    """What a device is told to wait for: conditions, and `windows` of which one has to be open.
    What does not matter is left out."""
    found = {key: value for key, value in vars(conditions).items() if value is not None}
    return {**found, "windows": [vars(one) for one in windows]} if windows else found


@dataclass(frozen=True)
class Deadlines(PolicyPart):
    """`silent_s`: a device that switched and then says nothing counts as failed. `lease_s`: a lease
    that was not used falls back. `unreached_s`: after so long without news of the devices that are
    left, the last wave counts as complete without them (None: it waits)."""

    silent_s: Annotated[int, duration(60)] = 1800
    lease_s: Annotated[int, duration(60)] = 3600
    unreached_s: Annotated[int | None, duration(60)] = None


@dataclass(frozen=True)
class Policy(PolicyPart):
    """A recipe, complete and consistent. `together` are models that change in one with this one;
    without `choose` each device gets the first variant that fits, in the publisher's order."""

    name: Annotated[str, NAME]
    waves: Annotated[tuple[Wave, ...], items(100)] = ()
    description: Annotated[str, kinds.text(512, empty=True)] = ""
    on_failure: Annotated[OnFailure, kinds.member(OnFailure)] = OnFailure.ROLLBACK
    pace: Pace = field(default_factory=Pace)
    windows: Annotated[tuple[Window, ...], items(8)] = ()
    conditions: Conditions = field(default_factory=Conditions)
    deadlines: Deadlines = field(default_factory=Deadlines)
    approval: Annotated[bool, kinds.FLAG] = False
    together: Annotated[tuple[Annotated[str, named(check_model)], ...], items(16)] = ()
    choose: Choose | None = None

    @classmethod
    def rules(cls, given: dict[str, Any]) -> Iterator[Told]:
        waves = listed(given, "waves")
        percents, counts = ([size_in(wave, key) for wave in waves] for key in SIZES)
        shadows = [isinstance(w, dict) and w.get("shadow") is not None for w in waves]
        if given.get("waves", []) == []:
            yield ("waves",), "expected at least one wave"
        elif waves and percents[-1] != 100:
            last = ("waves", len(waves) - 1)
            yield last, "expected the last wave to end at 100%: `percent: 100%`"
        elif waves and shadows[-1]:
            no = "expected the last wave to switch its devices: no `shadow`"
            yield ("waves", len(waves) - 1, "shadow"), no
        yield from faults_of_order(shadows, {"percent": percents, "count": counts})
        yield from twice(given, "waves", wave_name)

    @property
    def first_switching(self) -> int:
        """The index of the first wave that is no shadow wave."""
        return sum(wave.shadow is not None for wave in self.waves)

    def in_shadow(self, index: int) -> bool:
        """Say whether wave `index` is a shadow wave; none is open at -1."""
        return 0 <= index < self.first_switching

    @property
    def slice_keys(self) -> tuple[str, ...]:
        """The labels and facts that any of its gates is asked by."""
        return tuple(sorted({key for w in self.waves for g in w.gates for key in g.slice_by}))

    @property
    def asks(self) -> dict[str, tuple[str, ...]]:
        """The live metrics that any of its gates looks at, each with the statistics asked for."""
        found: dict[str, set[str]] = defaultdict(set)
        if self.first_switching:
            found |= {metric: {"mean"} for metric in (ERROR, DISAGREE)}
        for wave in self.waves:
            for gate in wave.gates:
                if isinstance(gate, MetricGate):
                    found[gate.metric].add(gate.statistic)
                elif isinstance(gate, PairedGate):
                    for metric, statistic in gate.asks:
                        found[metric].add(statistic)
        return {metric: tuple(sorted(asked)) for metric, asked in found.items()}
