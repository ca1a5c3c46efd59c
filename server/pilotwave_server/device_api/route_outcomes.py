"""Find, in the picture in memory, which rollouts a check-in has to do with.

No statement for a device that has to do with none. What a report means and how it is stored is the
rollouts' own affair (`rollouts/reports/`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pilotwave_protocol.messages.check_in import CheckIn, DeviceEvent, ModelReport
from pilotwave_protocol.states import ModelState
from pilotwave_server.fleet.records import DeviceRecord
from pilotwave_server.fleet.state import FleetState
from pilotwave_server.rollouts.assignments.snapshot import (
    DeviceView,
    FleetSnapshot,
    RunningRollout,
)
from pilotwave_server.rollouts.assignments.variants import has_another
from pilotwave_server.rollouts.reports.store import Heard
from pilotwave_server.rollouts.states import RolloutState
from pilotwave_server.telemetry.store import VerifiedCheckIn


def heard(fleet: FleetState, items: Sequence[VerifiedCheckIn]) -> list[Heard]:
    """Return what these check-ins may say of rollouts."""
    snapshot = fleet.snapshot
    if not snapshot.rollouts:
        return []
    records = _records(fleet, snapshot, items)
    return [
        h
        for item in items
        if item.check_in.device in records
        for h in _of_one(fleet, item, records[item.check_in.device], snapshot)
    ]


def _records(
    fleet: FleetState, snapshot: FleetSnapshot, items: Sequence[VerifiedCheckIn]
) -> dict[str, DeviceRecord]:
    """The devices as they are under `snapshot`; those that were forgotten meanwhile are loaded."""
    names = {i.check_in.device for i in items if _concerned(i.check_in, snapshot)}
    found = {name: fleet.records.get(name) for name in names}
    known = {n: r for n, r in found.items() if r and r.reading_key == snapshot.reading_key}
    missing = names - known.keys()
    return {**known, **fleet.load(missing)} if missing else known


def _concerned(check_in: CheckIn, snapshot: FleetSnapshot) -> bool:
    return any(report.model in snapshot.rollouts for report in check_in.models)


def _of_one(
    fleet: FleetState, item: VerifiedCheckIn, record: DeviceRecord, snapshot: FleetSnapshot
) -> Iterator[Heard]:
    check_in = item.check_in
    for report in check_in.models:
        failed = report.state is ModelState.FAILED  # most have not, and cost nothing more
        another = failed and has_another(_view(record), report, snapshot)
        for rollout in snapshot.rollouts.get(report.model, ()):
            yield Heard(
                device_id=item.device_id,
                rollout=rollout,
                report=report,
                events=[e for e in check_in.events if e.model == report.model],
                directive_seq=check_in.directive_seq,
                may_join=_may_join(fleet, record, rollout, report, check_in.events),
                agent=check_in.agent,
                switches=rollout.includes(record.bucket, record.profile.groups, record.name),
                has_another=another,
            )


def _view(record: DeviceRecord) -> DeviceView:
    return DeviceView(record.name, record.profile.groups, dict(record.profile.capabilities))


def _may_join(
    fleet: FleetState,
    record: DeviceRecord,
    rollout: RunningRollout,
    report: ModelReport,
    events: Sequence[DeviceEvent],
) -> bool:
    """Say whether the device, not yet on the rollout's books, may have acted by its word.

    A paced one has each of its devices on the books before it offers them anything; a pinned
    device does what its pin says.
    """
    pinned = record.personal is not None and report.model in record.personal.pins
    if rollout.paced or pinned or rollout.state is RolloutState.ROLLED_BACK:
        return False
    if rollout.includes(record.bucket, record.profile.groups, record.name):
        return True
    return bool(rollout.open) and _took_it_and_was_moved(fleet, record, rollout, report, events)


def _took_it_and_was_moved(
    fleet: FleetState,
    record: DeviceRecord,
    rollout: RunningRollout,
    report: ModelReport,
    events: Sequence[DeviceEvent],
) -> bool:
    """Say whether it has just switched to the version, and nothing tells it to: it took it, and
    left the group before it could say so."""
    runs = report.current is not None and report.current.version == rollout.version
    mine = (rollout.model, rollout.version)
    if not runs or not any(e.kind == "switched" and (e.model, e.version) == mine for e in events):
        return False
    entries = fleet.order(record, fleet.snapshot).entries
    return not any((e.model, e.version) == mine for e in entries)
