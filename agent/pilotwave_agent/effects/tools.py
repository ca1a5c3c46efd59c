"""What each effect works with: the device's files, its journal, its line to the server."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pilotwave_agent import health, version_folder
from pilotwave_agent.core.conditions import Hold
from pilotwave_agent.core.environment import Environment
from pilotwave_agent.core.journal import Journal
from pilotwave_agent.core.records import Record
from pilotwave_agent.core.state import ModelSlot
from pilotwave_agent.core.steps import Moment, Rules
from pilotwave_agent.host import layout as host_layout
from pilotwave_agent.host.disk import Disk, refusal_of
from pilotwave_agent.host.layout import Layout
from pilotwave_agent.net.http import Channel
from pilotwave_agent.net.mirrors import Mirrors
from pilotwave_agent.settings.config import Config
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.messages.check_in import Installed
from pilotwave_protocol.states import ModelState, Reason

TRANSIENT = (Reason.DISK_FULL, Reason.DISK_READONLY)
"""What says nothing about a version: it may pass."""


@dataclass
class Notes:
    """What one process knows that need not outlive it.

    When (uptime) each model was last probed, its application last asked, its files last fetched;
    what models wait for, and until when the conditions of a fetch need not be looked at; whose
    variants cannot be compared now; what the agent has `proved` of itself since it started, and the
    `trouble` that kept it from more; the models that are `traced`.
    """

    probed: dict[str, float] = field(default_factory=dict)
    asked: dict[str, float] = field(default_factory=dict)
    fetched: dict[str, float] = field(default_factory=dict)
    parked: dict[str, RefusedError] = field(default_factory=dict)
    holds: dict[str, Hold] = field(default_factory=dict)
    look_at: float = 0.0
    later: set[str] = field(default_factory=set)
    changed: bool = False
    proved: set[str] = field(default_factory=set)
    trouble: str = ""
    traced: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Tools:
    """What one process that holds the work lock has at hand."""

    config: Config
    disk: Disk
    layout: Layout
    journal: Journal
    channel: Channel
    mirrors: Mirrors
    token: str
    now: Callable[[], Moment]
    look_around: Callable[[], Environment]
    tell: Callable[[dict[str, Any]], None]
    notes: Notes

    @property
    def rules(self) -> Rules:
        """The probation that the device's settings ask for."""
        probe = self.config.probe
        return Rules(self.config.probation_s, probe.interval_s, probe.failures)

    def record(self, record: Record | None) -> None:
        """Journal what has come about."""
        if record is not None:
            self.journal.append(record)
            self.notes.changed = True
            self.tell({"news": True})

    def slot(self, model: str) -> ModelSlot:
        """Return where a model stands."""
        return self.journal.state.slot(model)

    def build(self, version: Installed) -> version_folder.Build:
        """Read what a version is made of."""
        return version_folder.build_of(self.disk, self.layout, version)

    def candidate(self, slot: ModelSlot) -> tuple[Installed, version_folder.Build]:
        """Return the version that is on its way, and what it is made of."""
        if slot.candidate is None:
            raise RefusedError(Reason.INTERNAL, f"{slot.model}: the journal names no candidate")
        return slot.candidate, self.build(slot.candidate)

    def is_intact(self, slot: ModelSlot, version: Installed, *, deep: bool) -> bool:
        """Say whether a version's folder is as it was made."""
        return version_folder.intact(self.disk, self.layout, slot.model, version, deep=deep)

    def point(self, model: str, current: Installed, previous: Installed | None) -> None:
        """Make a model's links name these versions."""
        host_layout.point(self.disk, self.layout, model, "previous", previous)
        host_layout.point(self.disk, self.layout, model, "current", current)

    def relink(self, slot: ModelSlot) -> None:
        """Make a model's links say what the journal says."""
        if slot.current is not None:
            with disk_says_no():
                self.point(slot.model, slot.current, slot.previous)

    def subject(self, slot: ModelSlot, version: Installed, state: ModelState) -> health.Subject:
        """Describe a version to its probe."""
        path, number = self.layout.version(slot.model, version), slot.number_of(version)
        return health.Subject(slot.model, version.version, path, str(state), number)


@contextlib.contextmanager
def disk_says_no() -> Iterator[None]:
    """Turn what the file system raises inside into a `RefusedError`."""
    try:
        yield
    except OSError as e:
        raise refusal_of(e) from e
