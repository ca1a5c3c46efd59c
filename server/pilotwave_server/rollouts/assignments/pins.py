"""An operator's word for one device: pin, roll back, unpin, retry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import ClassVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from pilotwave_server.audit.service import record
from pilotwave_server.db import next_revision
from pilotwave_server.devices.service import get_device
from pilotwave_server.devices.tables import DeviceRow, PinRow
from pilotwave_server.errors import Conflict, NotFound
from pilotwave_server.registry.publish import ModelUnknown
from pilotwave_server.registry.tables import ModelRow
from pilotwave_server.rollouts import end_removals
from pilotwave_server.rollouts.assignments import capacity
from pilotwave_server.rollouts.assignments.load_device import look
from pilotwave_server.rollouts.assignments.offerable import check_may_be_offered
from pilotwave_server.rollouts.assignments.resolve import Candidate, may_not_be_offered
from pilotwave_server.rollouts.assignments.snapshot import DeviceView, FleetSnapshot
from pilotwave_server.rollouts.leases import forget_failure
from pilotwave_server.telemetry.history import FAILED, HEALTHY, ROLLED_BACK
from pilotwave_server.telemetry.tables import DeviceHistoryRow, DeviceModelRow


class NothingToRollBackTo(Conflict):
    """No earlier version was healthy on this device, or none of those may be offered any more."""

    code: ClassVar[str] = "nothing_to_roll_back_to"


class NotPinned(NotFound):
    code: ClassVar[str] = "not_pinned"


def pin(
    session: Session,
    snapshot: FleetSnapshot,
    *,
    name: str,
    model: str,
    version: str,
    reason: str,
    actor: str,
    now: datetime,
    verb: str = "device.pin",
) -> PinRow:
    """Hold a device on a version, whatever its groups say.

    DeviceUnknown, ModelUnknown, VersionUnknown, VersionNotOffered, TooManyModels.
    """
    device = get_device(session, name, lock=True)
    view = look(session, snapshot, name).view
    check_may_be_offered(session, snapshot, view, model=model, version=version)
    capacity.check_device(session, snapshot, name, model)
    row = session.get(PinRow, (device.id, model))
    before = None if row is None else {"version": row.version, "reason": row.reason}
    if row is None:
        row = PinRow(device_id=device.id, model=model)
        session.add(row)
    row.version, row.reason, row.set_by, row.set_at = version, reason, actor, now
    end_removals.end_for_device(session, device.id, model)
    device.revision = next_revision(session)
    after = {"version": version, "reason": reason}
    _note(session, device, model, verb, actor, now, before=before, after=after)
    return row


def roll_back(
    session: Session,
    snapshot: FleetSnapshot,
    *,
    name: str,
    model: str,
    to: str | None,
    reason: str,
    actor: str,
    now: datetime,
) -> PinRow:
    """Send a device back to `to`, by default to its last good version, and pin it there.

    As `pin`, and NothingToRollBackTo.
    """
    if to is None:
        device = get_device(session, name, lock=True)
        view = look(session, snapshot, name).view
        to = last_good(session, snapshot, device, view, model)
    return pin(
        session,
        snapshot,
        name=name,
        model=model,
        version=to,
        reason=reason,
        actor=actor,
        now=now,
        verb="device.rollback",
    )


def last_good(
    session: Session, snapshot: FleetSnapshot, device: DeviceRow, view: DeviceView, model: str
) -> str:
    """The version older than the present one that was healthy on this device last.

    One that failed or was rolled back there after that is passed over, and so is one that may not
    be offered. NothingToRollBackTo, which says what was found.
    """
    _need_model(session, model)
    current = session.scalar(
        select(DeviceModelRow.current_version).where(
            DeviceModelRow.device_id == device.id, DeviceModelRow.model == model
        )
    )
    if current is None:
        raise NothingToRollBackTo(f"{device.name} runs no version of {model}, as far as it said")
    running = snapshot.versions.get((model, current))
    newest = running.counter if running else None
    passed: list[str] = []
    for version in _were_healthy(session, device, model):
        known = snapshot.versions.get((model, version))
        if known is None or version == current or (newest and known.counter >= newest):
            continue
        hold = may_not_be_offered(view, snapshot, Candidate("pin", model, version))
        if hold is None:
            return version
        passed.append(hold.sentence)
    because = "; ".join(passed) or "no older version was ever healthy there"
    raise NothingToRollBackTo(
        f"{device.name} runs {model} {current} and has nothing to go back to: {because}. "
        "Name the version to go back to (on the command line: `--to VERSION`)"
    )


def _were_healthy(session: Session, device: DeviceRow, model: str) -> Iterator[str]:
    """The versions that were healthy on the device and did not fail since, the latest first."""
    h = DeviceHistoryRow
    newest_first = (
        select(h.version, h.became)
        .where(h.device_id == device.id, h.model == model)
        .where(h.became.in_((HEALTHY, FAILED, ROLLED_BACK)))
        .order_by(h.id.desc())
    )
    settled: set[str] = set()
    for version, became in session.execute(newest_first):
        if version not in settled:
            settled.add(version)
            if became == HEALTHY:
                yield version


def unpin(session: Session, *, name: str, model: str, actor: str, now: datetime) -> None:
    """Give a device back to its groups. DeviceUnknown, NotPinned."""
    device = get_device(session, name, lock=True)
    row = session.get(PinRow, (device.id, model))
    if row is None:
        raise NotPinned(f"{name} has no pin for {model}")
    before = {"version": row.version, "reason": row.reason}
    session.delete(row)
    device.revision = next_revision(session)
    _note(session, device, model, "device.unpin", actor, now, before=before)


def retry(session: Session, *, name: str, model: str, actor: str, now: datetime) -> int:
    """Let a device try again what failed there; the attempt's number. ModelUnknown.

    A paced rollout in which it failed lets it in again when its turn comes.
    """
    revision = next_revision(session)  # holds the fleet before the device: see `leases.py`
    device = get_device(session, name, lock=True)
    _need_model(session, model)
    attempt = int(device.attempts.get(model, 0)) + 1
    device.attempts = {**device.attempts, model: attempt}
    forget_failure(session, device.id, model=model, counts_from=revision, now=now)
    device.revision = revision
    _note(session, device, model, "device.retry", actor, now, after={"attempt": attempt})
    return attempt


def _need_model(session: Session, model: str) -> None:
    if session.get(ModelRow, model) is None:
        raise ModelUnknown(model)


def _note(
    session: Session,
    device: DeviceRow,
    model: str,
    verb: str,
    actor: str,
    now: datetime,
    *,
    before: Mapping[str, object] | None = None,
    after: Mapping[str, object] | None = None,
) -> None:
    record(
        session,
        actor=actor,
        verb=verb,
        object=f"device/{device.name}",
        now=now,
        before=before and {"model": model, **before},
        after=after and {"model": model, **after},
    )
