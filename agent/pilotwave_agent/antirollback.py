"""What a device never forgets about versions: the guard against being led back.

It stands alone so that the resident agent, which only keeps it, need not load what judges by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING

from pilotwave_protocol.states import Reason

if TYPE_CHECKING:
    from pilotwave_protocol.trust import ModelPolicy


@dataclass(frozen=True)
class AntiRollback:
    """What a device never forgets, whatever a directive or a lost cache says. Only ever grows.

    `floors` are the highest release counters below which a model may not go, `yanked` the digests
    of manifests that may not run again. `time_floor` is the view's at the last accepted directive,
    for reports.
    """

    directive_seq: int = 0
    set_digest: str = ""
    floors: Mapping[str, int] = field(default_factory=dict)
    yanked: frozenset[str] = frozenset()
    time_floor: datetime | None = None

    def learned(self, model: str, policy: ModelPolicy) -> AntiRollback:
        """Return a memory that also knows a model's policy."""
        floor = max(self.floors.get(model, 0), policy.floor)
        floors = {**self.floors, model: floor} if floor else self.floors
        return replace(self, floors=floors, yanked=self.yanked | policy.yanked)

    def forbids(self, model: str, sha256: str, counter: int) -> Reason | None:
        """Say why a version may not run: asked at start and before any way back, too."""
        if sha256 in self.yanked:
            return Reason.YANKED
        return Reason.BELOW_FLOOR if counter < self.floors.get(model, 0) else None
