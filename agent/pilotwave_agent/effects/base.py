"""What each effect works with: the device's files, its journal, its line to the server.

The effects themselves are in `fetch`, `try_version` and `switch`; `effects` calls them in turn.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from pilotwave_agent import health, version_folder
from pilotwave_agent.core.conditions import Hold
from pilotwave_agent.core.environment import Environment
from pilotwave_agent.core.journal import Journal
from pilotwave_agent.core.machine import Moment, Rules
from pilotwave_agent.core.records import Record
from pilotwave_agent.core.state import ModelSlot
from pilotwave_agent.host import layout as host_layout
from pilotwave_agent.host.disk import Disk, refusal_of
from pilotwave_agent.host.layout import Layout
from pilotwave_agent.net.http import Channel
from pilotwave_agent.net.mirrors import Mirrors
from pilotwave_agent.settings.config import Config
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.messages import Installed
from pilotwave_protocol.states import ModelState, Reason

TRANSIENT = (Reason.DISK_FULL, Reason.DISK_READONLY)
"""What says nothing about a version: it may pass."""


def rules_of(config: Config) -> Rules:
    """Return the probation that a device's settings ask for."""
    probe = config.probe
    return Rules(config.probation_s, probe.interval_s, probe.failures)


@contextlib.contextmanager
def disk_says_no() -> Iterator[None]:
    """Turn what the file system raises inside into a `RefusedError`."""
    try:
        yield
    except OSError as e:
        raise refusal_of(e) from e


@dataclass
class EffectsBase:
    """What one process that holds the work lock has at hand."""

    config: Config
    disk: Disk
    layout: Layout
    journal: Journal
    channel: Channel
    now: Callable[[], Moment]
    token: str = ""
    tell_progress: Callable[[str, int], None] = lambda model, percent: None
    tell_news: Callable[[], None] = lambda: None
    probed: dict[str, float] = field(default_factory=dict)
    asked: dict[str, float] = field(default_factory=dict)
    fetched: dict[str, float] = field(default_factory=dict)
    parked: dict[str, RefusedError] = field(default_factory=dict)
    changed: bool = False
    look_around: Callable[[], Environment] = lambda: Environment(time.time())
    holds: dict[str, Hold] = field(default_factory=dict)
    look_at: float = 0.0
    mirrors: Mirrors = field(default_factory=Mirrors)

    def record(self, record: Record | None) -> None:
        """Journal what has come about."""
        if record is not None:
            self.journal.append(record)
            self.changed = True
            self.tell_news()

    def _slot(self, model: str) -> ModelSlot:
        return self.journal.state.slot(model)

    def _candidate(self, slot: ModelSlot) -> tuple[Installed, version_folder.Build]:
        if slot.candidate is None:
            raise RefusedError(Reason.INTERNAL, f"{slot.model}: the journal names no candidate")
        return slot.candidate, version_folder.build_of(self.disk, self.layout, slot.candidate)

    def _point(self, model: str, current: Installed, previous: Installed | None) -> None:
        host_layout.point(self.disk, self.layout, model, "previous", previous)
        host_layout.point(self.disk, self.layout, model, "current", current)

    def relink(self, slot: ModelSlot) -> None:
        """Make a model's links say what the journal says."""
        if slot.current is not None:
            with disk_says_no():
                self._point(slot.model, slot.current, slot.previous)

    def _subject(self, model: str, version: Installed, state: ModelState) -> health.Subject:
        path = self.layout.version(model, version)
        number = self._slot(model).number_of(version)
        return health.Subject(model, version.version, path, str(state), number)
