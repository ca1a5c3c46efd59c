"""An operator's word for one device: pin, roll back, unpin, retry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

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
from pilotwave_server.rollouts.assignments.held import Became, Held, hold
from pilotwave_server.rollouts.assignments.offerable import check_not_withheld
from pilotwave_server.rollouts.assignments.resolve import Candidate, may_not_be_offered
from pilotwave_server.rollouts.assignments.snapshot import FleetSnapshot
from pilotwave_server.rollouts.choice.store import forget_own_failures
from pilotwave_server.rollouts.leases import forget_failures
from pilotwave_server.telemetry.history import HEALTHY


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
) -> PinRow:
    """Hold a device on a version, whatever its groups say.

    DeviceUnknown, ModelUnknown, VersionUnknown, VersionNotOffered, TooManyModels.
    """
    held = hold(session, snapshot, [name], model)
    word = OperatorNote("device.pin", reason, actor, now)
    row = pin_held(session, snapshot, held, name, version, word)
    end_removals.end_for_devices(session, [row.device_id], model)
    held.rows[name].revision = next_revision(session)
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
    held = hold(session, snapshot, [name], model, with_history=to is None)
    word = OperatorNote("device.rollback", reason, actor, now)
    row = send_back(session, snapshot, held, name, to, word)
    end_removals.end_for_devices(session, [row.device_id], model)
    held.rows[name].revision = next_revision(session)
    return row


@dataclass(frozen=True)
class OperatorNote:
    """What an operator did and why, for the log and for the pin."""

    verb: str
    reason: str
    actor: str
    now: datetime


def send_back(
    session: Session,
    snapshot: FleetSnapshot,
    held: Held,
    name: str,
    to: str | None,
    word: OperatorNote,
) -> PinRow:
    """As `pin_held`, to the last good version by default. NothingToRollBackTo."""
    version = last_good(snapshot, held, name) if to is None else to
    return pin_held(session, snapshot, held, name, version, word)


def pin_held(
    session: Session,
    snapshot: FleetSnapshot,
    held: Held,
    name: str,
    version: str,
    word: OperatorNote,
) -> PinRow:
    """Pin one of the devices. Its revision, and an end to its removal, are the caller's to write.

    As `pin`. Nothing was changed where it raises.
    """
    device, (loaded, view) = held.device(name)
    held.check_version(session, version)
    check_not_withheld(snapshot, view, model=held.model, version=version)
    if not held.fits:
        capacity.check_device(snapshot, loaded, held.model)
    row = held.pins.get(device.id)
    before = None if row is None else {"version": row.version, "reason": row.reason}
    if row is None:
        row = PinRow(device_id=device.id, model=held.model)
        session.add(row)
    row.version, row.reason, row.set_by, row.set_at = version, word.reason, word.actor, word.now
    after = {"version": version, "reason": word.reason}
    _note(session, device, held.model, word.verb, word.actor, word.now, before=before, after=after)
    return row


def last_good(snapshot: FleetSnapshot, held: Held, name: str) -> str:
    """The version older than the present one that was healthy on this device last.

    One that failed or was rolled back there after that is passed over, and so is one that may not
    be offered. NothingToRollBackTo, which says what was found.
    """
    device, (_, view) = held.device(name)
    model, current = held.model, held.runs.get(device.id)
    if current is None:
        raise NothingToRollBackTo(f"{device.name} runs no version of {model}, as far as it said")
    running = snapshot.versions.get((model, current))
    newest = running.counter if running else None
    passed: list[str] = []
    for version in _were_healthy(held.became.get(device.id, ())):
        known = snapshot.versions.get((model, version))
        if known is None or version == current or (newest and known.counter >= newest):
            continue
        no = may_not_be_offered(view, snapshot, Candidate("pin", model, version))
        if no is None:
            return version
        passed.append(no.sentence)
    because = "; ".join(passed) or "no older version was ever healthy there"
    raise NothingToRollBackTo(
        f"{device.name} runs {model} {current} and has nothing to go back to: {because}. "
        "Name the version to go back to (on the command line: `--to VERSION`)"
    )


def _were_healthy(newest_first: Became) -> Iterator[str]:
    """The versions that were healthy on the device and did not fail since, the latest first."""
    settled: set[str] = set()
    for version, became in newest_first:
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
    if session.get(ModelRow, model) is None:
        raise ModelUnknown(model)
    attempt = try_again(session, device, model=model, revision=revision, actor=actor, now=now)
    forget_failures(session, [device.id], model=model, counts_from=revision, now=now)
    forget_own_failures(session, [device.id], model)
    return attempt


def try_again(
    session: Session, device: DeviceRow, *, model: str, revision: int, actor: str, now: datetime
) -> int:
    """Count one attempt up; return it. What failed in rollouts is the caller's to forget."""
    attempt = int(device.attempts.get(model, 0)) + 1
    device.attempts = {**device.attempts, model: attempt}
    device.revision = revision
    _note(session, device, model, "device.retry", actor, now, after={"attempt": attempt})
    return attempt


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
