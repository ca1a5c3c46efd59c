"""The fleet as `resolve` sees it: one immutable picture, taken at one revision.

No database and no clock in here; `snapshot.py` draws the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from pilotwave_protocol.fields import Scalar
from pilotwave_server.groups.selector import Predicate
from pilotwave_server.registry.service import Released

_NOTHING: Mapping[Any, Any] = MappingProxyType({})


def _nothing() -> Mapping[Any, Any]:
    return _NOTHING


@dataclass(frozen=True)
class GroupView:
    """A group. `selects` is None for a static one: its members know that they are in it."""

    id: int
    name: str
    selects: Predicate | None = None


@dataclass(frozen=True)
class Baseline:
    """What a group was told to run, at a revision."""

    group_id: int
    group: str
    model: str
    version: str
    revision: int


@dataclass(frozen=True)
class RunningRollout:
    """A version on its way to a group. `includes` says whether its open waves take a device."""

    id: str
    group_id: int
    model: str
    version: str
    includes: Callable[[str], bool]
    conditions: Mapping[str, Any] = field(default_factory=_nothing)


@dataclass(frozen=True)
class Quarantine:
    """A version that a group (None: every device) may not be offered."""

    group_id: int | None
    model: str
    version: str
    reason: str


@dataclass(frozen=True)
class FleetSnapshot:
    """All that decides what devices run, except what is known of the single device.

    `revision` is that of the last change which may concern every device. `baselines` and
    `rollouts` are newest first. `groups_key` changes when any selector does.
    """

    fleet: str
    revision: int
    groups: tuple[GroupView, ...] = ()
    groups_key: str = ""
    versions: Mapping[tuple[str, str], Released] = field(default_factory=_nothing)
    floors: Mapping[str, int] = field(default_factory=_nothing)
    baselines: Mapping[str, tuple[Baseline, ...]] = field(default_factory=_nothing)
    rollouts: Mapping[str, tuple[RunningRollout, ...]] = field(default_factory=_nothing)
    quarantines: tuple[Quarantine, ...] = ()

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

    `attempts` counts, by model, how often an operator asked it to try again.
    """

    name: str
    groups: frozenset[int] = frozenset()
    facts: Mapping[str, Scalar] = field(default_factory=_nothing)
    pins: Mapping[str, str] = field(default_factory=_nothing)
    attempts: Mapping[str, int] = field(default_factory=_nothing)
