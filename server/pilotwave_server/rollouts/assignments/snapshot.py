"""The fleet as `resolve` sees it: one immutable picture, taken at one revision.

No database and no clock in here; `load_snapshot.py` draws the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

from pilotwave_protocol.fields import Scalar
from pilotwave_protocol.tracing import TraceContext
from pilotwave_server.registry.service import Released
from pilotwave_server.rollouts.choice.trial import Trials
from pilotwave_server.rollouts.policies.choose import Choose
from pilotwave_server.rollouts.policies.policy import Pace
from pilotwave_server.rollouts.states import OFFERING, RolloutState
from pilotwave_server.rollouts.waves import position
from pilotwave_server.selector import Predicate

NO_PACE = Pace()
_NOTHING: Mapping[Any, Any] = MappingProxyType({})


def _nothing() -> Mapping[Any, Any]:
    return _NOTHING


@dataclass(frozen=True)
class GroupInFleet:
    """A group. `selects` is None for a static one: its members know that they are in it."""

    id: int
    name: str
    selects: Predicate | None = None


@dataclass(frozen=True)
class Baseline:
    """What a group was told to run, at a revision; `together` with which other models, its variant
    by `choose`."""

    group_id: int
    group: str
    model: str
    version: str
    revision: int
    together: tuple[str, ...] = ()
    choose: Choose | None = None


@dataclass(frozen=True)
class OpenShadow:
    """Whom the shadow waves take that were opened (as those of `RunningRollout`), and what devices
    are told. `lets_in`: one is open now, so that further devices may join."""

    condition: Mapping[str, Any] = field(default_factory=_nothing)
    threshold: int = 0
    canaries: frozenset[int] = frozenset()
    named: frozenset[str] = frozenset()
    lets_in: bool = False


@dataclass(frozen=True)
class RunningRollout:
    """A version on its way to a group, or one that devices took of a rollout that is over: an
    aborted one leaves it to them, one that is rolled back takes them back.

    `threshold` bounds the positions that the open percent and count waves take; `canaries` are the
    groups and `named` the devices of the open canary waves. Where `pace` has
    limits, a device needs a lease.
    `open` names the newest open wave for sentences; empty: none is open yet. `slice_keys` are the
    labels and facts by which its gates tell devices apart, `asks` the live metrics that they look
    at, each with its statistics. `shadow` is of the shadow waves, if one was opened. `trace` is
    the open wave's. `choose` says how a device gets its variant.
    """

    id: str
    row_id: int
    group_id: int
    model: str
    version: str
    state: RolloutState = RolloutState.RUNNING
    pace: Pace = NO_PACE
    open: str = ""
    threshold: int = 0
    multiplier: int = 1
    offset: int = 0
    canaries: frozenset[int] = frozenset()
    named: frozenset[str] = frozenset()
    conditions: Mapping[str, Any] = field(default_factory=_nothing)
    slice_keys: tuple[str, ...] = ()
    asks: Mapping[str, tuple[str, ...]] = field(default_factory=_nothing)
    trace: TraceContext | None = None
    choose: Choose | None = None
    shadow: OpenShadow | None = None

    @cached_property
    def paced(self) -> bool:
        """Whether a device needs a lease."""
        return self.pace.limits

    @property
    def takes_back(self) -> bool:
        """Whether the devices that took the version are sent back, wherever they are now."""
        return self.state in (RolloutState.ROLLING_BACK, RolloutState.ROLLED_BACK)

    def includes(self, bucket: int, groups: frozenset[int], name: str) -> bool:
        """Say whether the open waves switch the device of this bucket, these groups, this name."""
        return self._takes(self, bucket, groups, name)

    def tries(self, bucket: int, groups: frozenset[int], name: str) -> bool:
        """Say whether the device may try the version in shadow, until it is offered it."""
        return (
            self.shadow is not None
            and self.state in OFFERING
            and self._takes(self.shadow, bucket, groups, name)
        )

    def _takes(
        self, whom: RunningRollout | OpenShadow, bucket: int, groups: frozenset[int], name: str
    ) -> bool:
        return self.group_id in groups and (
            position(self.multiplier, self.offset, bucket) < whom.threshold
            or not whom.canaries.isdisjoint(groups)
            or name in whom.named
        )

    def offers(
        self, bucket: int, groups: frozenset[int], name: str, leases: frozenset[int]
    ) -> bool:
        """Say whether the device is offered the version now.

        A running rollout offers it to each device that its open waves include; where it is paced
        or paused, to those with a lease. An aborted one stays with the devices that took it; one
        that is being rolled back offers nothing.
        """
        if self.takes_back:
            return False
        if self.state is RolloutState.ABORTED:
            return self.row_id in leases and self.group_id in groups
        if (self.paced or self.state is RolloutState.PAUSED) and self.row_id not in leases:
            return False
        return self.includes(bucket, groups, name)

    def wants_lease(
        self, bucket: int, groups: frozenset[int], name: str, leases: frozenset[int]
    ) -> bool:
        """Say whether the device would be offered the version if it had a lease."""
        return (
            self.paced
            and self.state is RolloutState.RUNNING
            and self.row_id not in leases
            and self.includes(bucket, groups, name)
        )

    def wants_shadow(
        self, bucket: int, groups: frozenset[int], name: str, shadows: Collection[int]
    ) -> bool:
        """Say whether the device would try the version in shadow if it were let in; `shadows` are
        the rollouts that let it in."""
        return (
            self.shadow is not None
            and self.shadow.lets_in
            and self.state is RolloutState.RUNNING
            and self.row_id not in shadows
            and self.tries(bucket, groups, name)
        )


@dataclass(frozen=True)
class Quarantine:
    """A version that a group (None: every device) may not be offered."""

    group_id: int | None
    model: str
    version: str
    reason: str


@dataclass(frozen=True)
class Removal:
    """Where a model is ordered off: groups by number, devices by name."""

    groups: frozenset[int] = frozenset()
    devices: frozenset[str] = frozenset()


@dataclass(frozen=True)
class FleetSnapshot:
    """All that decides what devices run, except what is known of the single device.

    `revision` is that of the last change which may concern every device. `baselines` and
    `rollouts` are newest first. `asked` are the facts that versions ask for by name;
    `reading_key` changes when these do, or any selector: devices are to be read anew.
    """

    fleet: str
    revision: int
    groups: tuple[GroupInFleet, ...] = ()
    asked: frozenset[str] = frozenset()
    reading_key: str = ""
    versions: Mapping[tuple[str, str], Released] = field(default_factory=_nothing)
    floors: Mapping[str, int] = field(default_factory=_nothing)
    baselines: Mapping[str, tuple[Baseline, ...]] = field(default_factory=_nothing)
    rollouts: Mapping[str, tuple[RunningRollout, ...]] = field(default_factory=_nothing)
    quarantines: tuple[Quarantine, ...] = ()
    removals: Mapping[str, Removal] = field(default_factory=_nothing)
    trials: Trials = field(default_factory=_nothing)

    @cached_property
    def told_apart(self) -> frozenset[str]:
        """The devices that a removal names or that measure for their class, so that they share no
        order with others."""
        trying = {trial.device for found in self.trials.values() for trial in found}
        return frozenset(trying).union(*(removal.devices for removal in self.removals.values()))

    @cached_property
    def chooses(self) -> bool:
        """Whether any version's variants are chosen by measurement."""
        rollouts = (r.choose for found in self.rollouts.values() for r in found)
        baselines = (b.choose for found in self.baselines.values() for b in found)
        return any(choose is not None for choose in (*rollouts, *baselines))

    def chooses_of(self, model: str, version: str) -> dict[str, Choose]:
        """Return by what each group, by its name, gets its variant of a version."""
        found: dict[str, Choose] = {}
        for one in self._asking(model, version):
            if one.choose is not None:
                found.setdefault(self.group_name(one.group_id), one.choose)
        return found

    def choose_of(self, groups: frozenset[int], model: str, version: str) -> Choose | None:
        """Return by what devices of these groups get their variant of a version, whatever asks for
        it; None: by the publisher's order."""
        return next((choose for _, choose in self.choosers(groups, model, version)), None)

    def choosers(
        self, groups: frozenset[int], model: str, version: str
    ) -> Iterator[tuple[int, Choose]]:
        """Yield which of these groups ask by what to choose, the one that counts first: of rollouts
        the newest, then of baselines the newest."""
        for one in self._asking(model, version):
            if one.group_id in groups and one.choose is not None:
                yield one.group_id, one.choose

    def _asking(self, model: str, version: str) -> Iterator[RunningRollout | Baseline]:
        yield from (r for r in self.rollouts.get(model, ()) if r.version == version)
        yield from (b for b in self.baselines.get(model, ()) if b.version == version)

    def groups_of(
        self, labels: Mapping[str, str], facts: Mapping[str, Scalar], member_of: frozenset[int]
    ) -> frozenset[int]:
        """Return the ids of all groups of a device; `member_of` are its static ones."""
        selected = (g.id for g in self.groups if g.selects and g.selects(labels, facts))
        return member_of.union(selected)

    def group_name(self, group_id: int) -> str:
        """Return a group's name, for sentences."""
        return next((g.name for g in self.groups if g.id == group_id), f"group {group_id}")


@dataclass(frozen=True)
class DeviceView:
    """What is known of one device: its groups, the facts that decide what fits, its pins.

    `attempts` counts, by model, how often an operator asked it to try again. `leases` are the
    rollouts (by row number) that it may take the version of, or took it of; `took` those that would
    take it back, each with the version that it ran before; `shadows` those that let it try the
    version in shadow, each with the version that it ran then. `conflict` says whether two machines
    use its key.
    """

    name: str
    groups: frozenset[int] = frozenset()
    facts: Mapping[str, Scalar] = field(default_factory=_nothing)
    pins: Mapping[str, str] = field(default_factory=_nothing)
    attempts: Mapping[str, int] = field(default_factory=_nothing)
    bucket: int = 0
    leases: frozenset[int] = frozenset()
    conflict: bool = False
    took: frozenset[tuple[int, str | None]] = frozenset()
    shadows: frozenset[tuple[int, str | None]] = frozenset()


@dataclass(frozen=True)
class NewestSnapshot:
    """`read()` is the newest picture that this process has; the fleet's memory keeps it."""

    read: Callable[[], FleetSnapshot]

    @property
    def snapshot(self) -> FleetSnapshot:
        return self.read()
