"""Notice that a directive which was refused here may pass now: this device is another.

What the server changes, it offers anew. What changes here (the clock is set, a runtime is
installed, a setting is changed), nobody else knows.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pilotwave_agent.facts import facts_of
from pilotwave_agent.host.clock import Clock
from pilotwave_agent.settings.config import Config
from pilotwave_agent.settings.facts import is_app_fact
from pilotwave_protocol.fields import Scalar

LOOK_EVERY_S = 10.0
CLOCK_SET_S = 60.0


@dataclass(frozen=True)
class _Ground:
    """What a refusal can hang on, besides the directive and the metadata."""

    clock: float  # when the device was started, by its own clock: moves when that is set
    settings: int
    facts: Mapping[str, Scalar]

    def differs(self, other: _Ground) -> bool:
        moved = abs(self.clock - other.clock) > CLOCK_SET_S
        return moved or (self.settings, self.facts) != (other.settings, other.facts)


@dataclass
class Reconsider:
    """Looks while something is refused, at most every ten seconds and only when awake anyway."""

    config: Config
    config_path: Path
    clock: Clock
    root: Path = Path("/")
    _ground: _Ground | None = field(default=None)
    _look_at: float = 0.0

    def is_due(self, *, refusing: bool) -> bool:
        """Say whether what the refusal stood on has changed since the last look."""
        if not refusing:
            self._ground = None
            return False
        now = self.clock.uptime()
        if self._ground is not None and now < self._look_at:
            return False
        self._look_at = now + LOOK_EVERY_S
        before, self._ground = self._ground, self._look()
        return before is not None and self._ground.differs(before)

    def _look(self) -> _Ground:
        facts = facts_of(self.config, root=self.root)
        try:
            settings = os.stat(self.config_path).st_mtime_ns
        except OSError:
            settings = 0
        wall = self.clock.wall() - self.clock.uptime()
        return _Ground(wall, settings, {k: v for k, v in facts.items() if _fits_by(k)})


def _fits_by(fact: str) -> bool:
    """Whether `variant_fits` asks for it; others, as the temperature, change all the time."""
    if fact in ("arch", "memory_mb") or is_app_fact(fact):
        return True
    return fact.startswith(("runtime.", "accelerator.", "cpu.", "jetson"))
