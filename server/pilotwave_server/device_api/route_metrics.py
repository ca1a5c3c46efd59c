"""Find, in the picture in memory, which rollouts ask for the windows of a check-in, and as which
arm. No statement for devices that no rollout with such a gate has to do with.

The new arm is the devices that the open waves take and that run the version. The old arm is the
devices of the same group that no open wave takes: by lot, not by what became of them, so whoever is
early, often offline or failed to install is in neither by reason of that. Pinned devices do as they
are told and are in neither. What devices say of a version in shadow is of the new arm, each of its
windows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pilotwave_protocol.messages.check_in import CheckIn
from pilotwave_protocol.shadow import SHADOW_METRICS
from pilotwave_server.device_api.window_budget import Panel, own_time, phase_of
from pilotwave_server.fleet.records import DeviceRecord
from pilotwave_server.fleet.state import FleetState
from pilotwave_server.rollouts.assignments.snapshot import RunningRollout
from pilotwave_server.rollouts.reports.samples import Wanted, is_kept
from pilotwave_server.rollouts.states import OFFERING
from pilotwave_server.telemetry.live import NewWindow
from pilotwave_server.telemetry.store import Stored, VerifiedCheckIn

MOST_NEW = 400  # devices of an arm, metric and period; more tell a gate nothing new
MOST_OLD = 200


class MetricRouter:
    """Used by the one thread that writes check-ins."""

    def __init__(self, fleet: FleetState) -> None:
        self._fleet = fleet
        self._panels: dict[tuple[int, bool, str], Panel] = {}

    def wanted(
        self, items: Sequence[VerifiedCheckIn], stored: Sequence[Stored], *, moment: float
    ) -> list[Wanted]:
        """Return the windows that gates ask for. `moment` is now, in seconds since 1970."""
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
        if statistics is None or record is None:
            return
        if window.metric in SHADOW_METRICS:
            new, kept = _of_shadow(record, rollout, window), True
        elif _runs(check_in, window):
            new = _arm(record, rollout, window)
            kept = is_kept(window.number) if new else window.number >= 2
        else:
            return
        at = own_time(window.start, window.end, moment=moment)
        if new is None or at is None or not kept:
            return
        panel = self._panels.setdefault(
            (rollout.row_id, new, window.metric), Panel(MOST_NEW if new else MOST_OLD)
        )
        phase = phase_of(_secret(rollout, new=new, metric=window.metric), record.name)
        if panel.takes(window.device_id, phase, moment):
            yield Wanted(rollout.row_id, new, window, statistics, rollout.slice_keys, at)

    def _forget(self, rollouts: set[int]) -> None:
        for key in [key for key in self._panels if key[0] not in rollouts]:
            del self._panels[key]


def _secret(rollout: RunningRollout, *, new: bool, metric: str) -> bytes:
    """The rollout's draw, which no device is told: all server processes choose the same panel."""
    text = f"{rollout.multiplier} {rollout.offset} {new} {metric}"
    return text.encode()[:64]


def _runs(check_in: CheckIn, window: NewWindow) -> bool:
    """Say whether the device runs the window's version still: a late one tells of other times."""
    current = next((m.current for m in check_in.models if m.model == window.model), None)
    return current is not None and current.version == window.version


def _of_shadow(record: DeviceRecord, rollout: RunningRollout, window: NewWindow) -> bool | None:
    """Return True for a window of a device that was let into the rollout's shadow."""
    let_in = {row_id for row_id, _ in record.shadows}
    return True if rollout.row_id in let_in and window.version == rollout.version else None


def _arm(record: DeviceRecord, rollout: RunningRollout, window: NewWindow) -> bool | None:
    """Return whether the window is of the new arm; None if it is of neither."""
    pinned = record.personal is not None and window.model in record.personal.pins
    if pinned or rollout.group_id not in record.profile.groups:
        return None
    taken = rollout.includes(record.bucket, record.profile.groups, record.name)
    has_it = window.version == rollout.version
    return has_it if taken is has_it else None
