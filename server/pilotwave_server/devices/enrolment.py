"""How a device joins: by a one-time code, or by asking and being accepted.

Nobody without a code can change anything about a name that was used before, not even a revoked one:
such a name is free again only for who holds a code.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from pilotwave_protocol.messages.enrol import Enrol
from pilotwave_server.audit.service import record
from pilotwave_server.db import next_revision
from pilotwave_server.devices.codes import use_code
from pilotwave_server.devices.errors import KeyRevoked, NameTaken, TooManyPending
from pilotwave_server.devices.facts import normal_facts
from pilotwave_server.devices.intervals import every_s
from pilotwave_server.devices.report_tables import DeviceModelRow
from pilotwave_server.devices.service import find_device
from pilotwave_server.devices.tables import DeviceRow, EnrolmentCodeRow, GroupMemberRow, PinRow

MAX_PENDING = 1000
MAX_PENDING_OF_ONE = 250  # address
PENDING = timedelta(days=30)


@dataclass(frozen=True)
class Enrolled:
    """The device after its wish was heard; `changed` is False where it was so already."""

    row: DeviceRow
    changed: bool


def enrol(
    session: Session, *, wish: Enrol, check_in_s: int, now: datetime, address: str = ""
) -> Enrolled:
    """Take in a device whose wish was signed by the key in it, and came from `address`.
    `check_in_s` is how often the answer tells it to check in.

    Raises BadCode, NameTaken, KeyRevoked, TooManyPending.
    """
    enrolled = _enrol(session, wish, now, address)
    if enrolled.changed:
        enrolled.row.check_in_s = every_s(check_in_s, enrolled.row.facts)
    return enrolled


def _enrol(session: Session, wish: Enrol, now: datetime, address: str) -> Enrolled:
    row = find_device(session, wish.name, lock=True)
    if row is None:
        return Enrolled(_new_device(session, wish, now, address), True)
    if row.public_key == wish.public_key:
        return _same_key(session, row, wish, now)
    if row.state == "enrolled":
        raise NameTaken(
            f"another device is called {wish.name}; choose another name, or, if it is this one "
            f"with a new key, run `pilotwave devices revoke {wish.name}` and enrol with a code of "
            f"`pilotwave codes create --device {wish.name}`"
        )
    if wish.code is None:
        raise NameTaken(
            f"another device is or was called {wish.name}; an enrolment code is needed to follow it"
        )
    code = use_code(session, code=wish.code, device=wish.name, now=now)
    _start_anew(session, row, wish, code)
    return _let_in(session, row, code, now)


def _make_room(session: Session, address: str, now: datetime) -> None:
    """Let one more device wait to be accepted. Raises TooManyPending.

    Where too many wait, the oldest of the address that asked for most of them goes: so whoever
    asks a thousand times pushes out their own.
    """
    d = DeviceRow
    pending = select(d).where(d.state == "pending").order_by(d.id)
    for old in session.scalars(pending.where(d.created_at < now - PENDING)).all():
        _give_up(session, old, now)
    asked = select(d.asked_from, func.count()).where(d.state == "pending").group_by(d.asked_from)
    counts = dict(session.execute(asked).tuples().all())
    mine = counts.get(address, 0)
    most = max(counts, key=lambda of: counts[of], default=None)
    full = sum(counts.values()) >= MAX_PENDING
    if mine >= MAX_PENDING_OF_ONE or (full and counts[most] <= mine + 1):
        raise TooManyPending("too many devices wait to be accepted; use an enrolment code")
    if full:
        theirs = d.asked_from.is_(None) if most is None else d.asked_from == most
        for oldest in session.scalars(pending.where(theirs).limit(1)).all():
            _give_up(session, oldest, now)


def _give_up(session: Session, row: DeviceRow, now: datetime) -> None:
    """Forget a device that waited; it may ask again."""
    record(
        session,
        actor="server",
        verb="device.expire",
        object=f"device/{row.name}",
        now=now,
        before={"public_key": row.public_key},
    )
    session.flush()
    session.execute(delete(DeviceRow).where(DeviceRow.id == row.id))


def _new_device(session: Session, wish: Enrol, now: datetime, address: str) -> DeviceRow:
    if wish.code is None:
        _make_room(session, address, now)
    code = None
    if wish.code is not None:
        code = use_code(session, code=wish.code, device=wish.name, now=now)
    row = DeviceRow(
        name=wish.name,
        public_key=wish.public_key,
        state="pending",
        revision=next_revision(session),
        facts=normal_facts(wish.facts),
        created_at=now,
        asked_from=address[:64] or None,
    )
    session.add(row)
    try:
        session.flush()
    except IntegrityError as error:
        raise NameTaken(f"another device has just taken the name {wish.name}") from error
    if code is not None:
        _let_in(session, row, code, now)
    else:
        _note(session, row, "device.ask", now)
    return row


def _same_key(session: Session, row: DeviceRow, wish: Enrol, now: datetime) -> Enrolled:
    if row.state == "revoked":
        raise KeyRevoked("this key was revoked: make a new one and ask for an enrolment code")
    if row.state == "enrolled" or wish.code is None:
        return Enrolled(row, False)
    code = use_code(session, code=wish.code, device=wish.name, now=now)
    row.facts = normal_facts(wish.facts)
    return _let_in(session, row, code, now)


def _start_anew(session: Session, row: DeviceRow, wish: Enrol, code: EnrolmentCodeRow) -> None:
    """Another machine takes over a name: nothing that was the old one's is its, but the history.

    Labels and memberships stay only under a code that was made for this very name: with them come
    versions, and a code for any device must not buy those.
    """
    row.public_key = wish.public_key
    row.facts = normal_facts(wish.facts)
    row.attempts = {}
    row.last_seq = row.acked_event = row.acked_window = 0
    row.numbering, row.boots = "", []
    row.plain_seq = row.top_event = 0
    row.conflict_since = row.conflict_at = None
    row.dropped_events = row.directive_seq = 0
    row.refusal = row.refused_since = None
    row.last_seen = row.last_check_in = None
    row.silent_since = None
    session.execute(delete(DeviceModelRow).where(DeviceModelRow.device_id == row.id))
    session.execute(delete(PinRow).where(PinRow.device_id == row.id))
    if code.device is None:
        row.labels = {}
        session.execute(delete(GroupMemberRow).where(GroupMemberRow.device_id == row.id))


def _let_in(session: Session, row: DeviceRow, code: EnrolmentCodeRow, now: datetime) -> Enrolled:
    row.state = "enrolled"
    row.enrolled_at = now
    row.generation = (row.generation or 0) + 1
    row.labels = {**(row.labels or {}), **code.labels}
    row.revision = next_revision(session)
    _note(session, row, "device.enrol", now, code=code.id)
    return Enrolled(row, True)


def _note(session: Session, row: DeviceRow, verb: str, now: datetime, **after: object) -> None:
    record(
        session,
        actor=f"device/{row.name}",
        verb=verb,
        object=f"device/{row.name}",
        now=now,
        after={"state": row.state, "public_key": row.public_key, "labels": row.labels, **after},
    )
