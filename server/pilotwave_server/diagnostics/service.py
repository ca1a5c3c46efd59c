"""Ask a device for diagnostics, take its answer, forget both after a week.

The answer is sealed for the reader's key, so whoever has this database cannot read it; that the
device made it, its signature says.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import ClassVar

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from pilotwave_protocol import dsse
from pilotwave_protocol.errors import ProtocolError
from pilotwave_protocol.messages.diagnostics import (
    DIAGNOSTICS_TYPE,
    MAX_DIAGNOSTICS_BYTES,
    Diagnostics,
    DiagnosticsWish,
    parse_diagnostics,
)
from pilotwave_server.audit.service import record
from pilotwave_server.devices.errors import WrongDeviceState
from pilotwave_server.devices.service import get_device
from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.diagnostics.tables import DiagnosticsRow
from pilotwave_server.envelopes import is_signed_by
from pilotwave_server.errors import Invalid, NotFound
from pilotwave_server.paging import PageRequest, paginate

KEEP = timedelta(days=7)


class BadDiagnostics(Invalid):
    """Not an answer of this device's to the wish that is open."""

    code: ClassVar[str] = "bad_diagnostics"


class DiagnosticsUnknown(NotFound):
    """There is no such wish, or its week is over."""

    code: ClassVar[str] = "diagnostics_unknown"


def ask(session: Session, *, device: str, reader: str, actor: str, now: datetime) -> DiagnosticsRow:
    """Have the device asked with its next check-in. A wish that was open gives way.
    DeviceUnknown, WrongDeviceState."""
    row = get_device(session, device, lock=True)
    if row.state != "enrolled":
        raise WrongDeviceState(f"{device} is {row.state}: only an enrolled device answers")
    d = DiagnosticsRow
    open_ = (d.device_id == row.id, d.state == "waiting")
    session.execute(update(d).where(*open_).values(state="replaced"))
    made = d(device_id=row.id, reader=reader, state="waiting", asked_by=actor, asked_at=now)
    session.add(made)
    session.flush()
    row.diagnostics_wish = f"{made.id} {reader}"
    told = {"id": made.id, "reader": reader}
    record(
        session, actor=actor, verb="device.diagnostics", object=f"device/{device}", now=now,
        after=told,
    )  # fmt: skip
    return made


def wish_of(noted: str | None) -> DiagnosticsWish | None:
    """Read what a device's row says of the wish that is open."""
    if noted is None:
        return None
    number, _, reader = noted.partition(" ")
    return DiagnosticsWish(int(number), reader)


def take(session: Session, raw: bytes, *, device: str, now: datetime) -> None:
    """Keep the answer that `device` sent. BadDiagnostics, DeviceUnknown."""
    row = get_device(session, device, lock=True)
    found = _opened(raw, row)
    d = session.get(DiagnosticsRow, found.wish.id)
    if wish_of(row.diagnostics_wish) != found.wish or d is None:
        raise BadDiagnostics("nobody waits for this answer")
    row.diagnostics_wish = None
    d.state, d.answered_at = ("refused" if found.refused else "answered"), now
    d.detail, d.envelope = found.refused, raw


def _opened(raw: bytes, row: DeviceRow) -> Diagnostics:
    try:
        claimed = dsse.peek_unverified(
            raw, payload_type=DIAGNOSTICS_TYPE, max_bytes=MAX_DIAGNOSTICS_BYTES
        )
        public = bytes.fromhex(row.public_key)
        if not is_signed_by(claimed, payload_type=DIAGNOSTICS_TYPE, public=public):
            raise BadDiagnostics(f"expected an envelope signed by the key of {row.name}")
        found = parse_diagnostics(claimed.payload)
    except ProtocolError as error:
        raise BadDiagnostics(f"this is no answer: {error}") from error
    if (found.device, found.public_key) != (row.name, row.public_key):
        raise BadDiagnostics(f"expected the answer of {row.name}; got one of {found.device}")
    return found


def withdraw(session: Session, *, device: str, number: int, actor: str, now: datetime) -> None:
    """Forget a wish and its answer. DeviceUnknown, DiagnosticsUnknown."""
    row = get_device(session, device, lock=True)
    gone = find(session, row, number)
    if (open_ := wish_of(row.diagnostics_wish)) and open_.id == number:
        row.diagnostics_wish = None
    session.delete(gone)
    record(
        session, actor=actor, verb="device.diagnostics_forgotten", object=f"device/{device}",
        now=now, before={"id": number},
    )  # fmt: skip


def find(session: Session, row: DeviceRow, number: int) -> DiagnosticsRow:
    """One wish of a device's, or DiagnosticsUnknown."""
    found = session.get(DiagnosticsRow, number)
    if found is None or found.device_id != row.id:
        raise DiagnosticsUnknown(f"{row.name} has no diagnostics {number}")
    return found


def list_of(
    session: Session, row: DeviceRow, *, page: PageRequest
) -> tuple[Sequence[DiagnosticsRow], str | None]:
    """A device's wishes, the newest first."""
    query = select(DiagnosticsRow).where(DiagnosticsRow.device_id == row.id)
    return paginate(session, query, keys=[DiagnosticsRow.id], page=page, descending=True)


def forget(session: Session, *, now: datetime) -> None:
    """Forget what is older than a week, and the wishes that nobody answered."""
    d = DiagnosticsRow
    old = select(d.id, d.device_id).where(d.asked_at < now - KEEP).limit(500)
    rows = session.execute(old).tuples().all()
    for number, device in rows:
        mine = DeviceRow.diagnostics_wish.startswith(f"{number} ")
        session.execute(
            update(DeviceRow).where(DeviceRow.id == device, mine).values(diagnostics_wish=None),
            execution_options={"synchronize_session": False},
        )
    session.execute(delete(d).where(d.id.in_([number for number, _ in rows])))
