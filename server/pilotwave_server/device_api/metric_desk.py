"""Find, in the picture in memory, which rollouts ask for the windows of a check-in, and as which
arm. No statement for devices that no rollout with such a gate has to do with.

The new arm is the devices that the open waves take and that run the version. The old arm is the
devices of the same group that no open wave takes: by lot, not by what became of them, so whoever is
early, often offline or failed to install is in neither by reason of that. Pinned devices do as they
are told and are in neither.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pilotwave_protocol.messages import CheckIn
from pilotwave_server.device_api.fleet_state import FleetState
from pilotwave_server.device_api.records import DeviceRecord
from pilotwave_server.rollouts.fleet import RunningRollout
from pilotwave_server.rollouts.sampling import Wanted
from pilotwave_server.rollouts.states import OFFERING
from pilotwave_server.telemetry.live import NewWindow
from pilotwave_server.telemetry.store import Stored, VerifiedCheckIn

PERIOD_S = 900.0
MOST_NEW = 400  # windows of an arm, metric and period; more tell a gate nothing new
MOST_OLD = 200
_WHOLE = 2**32


@dataclass
class _Panel:
    """The devices of an arm whose windows are kept: a share of them by hash, always the same ones.
    It is halved each time it brings more than it should within a period."""

    most: int
    share: int = _WHOLE
    since: float = 0.0
    taken: int = 0

    def takes(self, phase: int, moment: float) -> bool:
        """Say whether a window of the device of this hash is kept, and count it."""
        if phase >= self.share:
            return False
        if not 0 <= moment - self.since < PERIOD_S:
            self.since, self.taken = moment, 0
        if self.taken >= self.most:
            self.share //= 2
            self.taken = 0
        self.taken += 1
        return True


class MetricDesk:
    """Used by the one thread that writes check-ins."""

    def __init__(self, fleet: FleetState) -> None:
        self._fleet = fleet
        self._panels: dict[tuple[int, bool, str], _Panel] = {}

    def wanted(
        self, items: Sequence[VerifiedCheckIn], stored: Sequence[Stored], *, moment: float
    ) -> list[Wanted]:
        """Return the windows that gates ask for. `moment` is in seconds since whenever."""
        asking = {
            model: [r for r in found if r.asks and r.state in OFFERING]
            for model, found in self._fleet.snapshot.rollouts.items()
        }
        self._forget({r.row_id for found in asking.values() for r in found})
        if not any(asking.values()):
            return []
        return [
            wanted
            for item, one in zip(items, stored, strict=True)
            for window in one.windows
            for rollout in asking.get(window.model, ())
            for wanted in self._of(item.check_in, window, rollout, moment)
        ]

    def _of(
        self, check_in: CheckIn, window: NewWindow, rollout: RunningRollout, moment: float
    ) -> Iterator[Wanted]:
        statistics = rollout.asks.get(window.metric)
        record = self._fleet.records.get(check_in.device)
        if statistics is None or record is None or not _runs(check_in, window):
            return
        new = _arm(record, rollout, window)
        if new is None or window.number < 2:
            return
        most = MOST_NEW if new else MOST_OLD
        panel = self._panels.setdefault((rollout.row_id, new, window.metric), _Panel(most))
        if panel.takes(record.phase, moment):
            yield Wanted(rollout.row_id, new, window, statistics, rollout.slice_keys)

    def _forget(self, rollouts: set[int]) -> None:
        for key in [key for key in self._panels if key[0] not in rollouts]:
            del self._panels[key]


def _runs(check_in: CheckIn, window: NewWindow) -> bool:
    """Say whether the device runs the window's version still: a late one tells of other times."""
    current = next((m.current for m in check_in.models if m.model == window.model), None)
    return current is not None and current.version == window.version


def _arm(record: DeviceRecord, rollout: RunningRollout, window: NewWindow) -> bool | None:
    """Return whether the window is of the new arm; None if it is of neither."""
    pinned = record.personal is not None and window.model in record.personal.pins
    if pinned or rollout.group_id not in record.profile.groups:
        return None
    taken = rollout.includes(record.bucket, record.profile.groups, record.name)
    has_it = window.version == rollout.version
    return has_it if taken is has_it else None
