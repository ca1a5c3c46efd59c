"""Take captured cases from devices, list them, delete them, forget the old.

Each is sealed for a reader's key, so whoever has this database cannot open it; that the device made
it, its signature says. What is kept is bounded for a device and for the fleet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar

from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.orm import Session

from pilotwave_protocol import dsse
from pilotwave_protocol.errors import ProtocolError
from pilotwave_protocol.messages.case import (
    CASE_TYPE,
    MAX_STATEMENT_BYTES,
    Case,
    parse_case,
    split_case,
)
from pilotwave_server.audit.service import record
from pilotwave_server.captures.tables import CaseRow
from pilotwave_server.devices.service import get_device
from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.envelopes import is_signed_by
from pilotwave_server.errors import Invalid, NotFound, Unavailable
from pilotwave_server.paging import PageRequest, paginate

LEAST_BYTES = 4096
"""What a case counts at least, so that small ones are bounded in number."""
FULL_WAIT_S = 3600


class BadCase(Invalid):
    """Not a captured case of this device's."""

    code: ClassVar[str] = "bad_case"


class CapturesFull(Unavailable):
    """As many cases are kept as may be, of the device or of all: pull some and delete them."""

    code: ClassVar[str] = "captures_full"


class CaseUnknown(NotFound):
    """There is no such case, or it was deleted."""

    code: ClassVar[str] = "case_unknown"


@dataclass(frozen=True)
class Bounds:
    """How many bytes of cases are kept of one device, and in all."""

    of_device: int
    of_fleet: int


@dataclass(frozen=True)
class CaseFilter:
    """Which cases are meant; None: any."""

    id: int | None = None
    device: str | None = None
    model: str | None = None
    reason: str | None = None
    reader: str | None = None

    def clauses(self) -> list[ColumnElement[bool]]:
        """Return what the rows must fulfil."""
        return [getattr(CaseRow, k) == v for k, v in vars(self).items() if v is not None]


def take(session: Session, raw: bytes, *, device: str, bounds: Bounds, now: datetime) -> None:
    """Keep a case that `device` sent; one that is kept already is fine. BadCase, CapturesFull,
    DeviceUnknown."""
    row = get_device(session, device, lock=True)
    case = _opened(raw, row)
    c = CaseRow
    if session.scalar(select(c.id).where(c.device_id == row.id, c.case_id == case.id)):
        return
    counted = max(len(raw), LEAST_BYTES)
    _check_room(session, row, counted, bounds)
    session.add(
        c(
            device_id=row.id,
            device=row.name,
            case_id=case.id,
            reader=case.reader,
            model=case.model,
            version=case.version,
            variant=case.variant,
            reason=case.reason,
            captured_at=case.at,
            received_at=now,
            size=counted,
            content=raw,
        )
    )


def _check_room(session: Session, row: DeviceRow, size: int, bounds: Bounds) -> None:
    total = select(func.coalesce(func.sum(CaseRow.size), 0))
    mine = int(session.scalar(total.where(CaseRow.device_id == row.id)) or 0)
    if mine + size > bounds.of_device:
        words = f"{mine} bytes of cases of {row.name} are kept, of {bounds.of_device} at most"
        raise CapturesFull(words, retry_after_s=FULL_WAIT_S)
    every = int(session.scalar(total) or 0)
    if every + size > bounds.of_fleet:
        words = f"{every} bytes of cases are kept, of {bounds.of_fleet} at most"
        raise CapturesFull(words, retry_after_s=FULL_WAIT_S)


def _opened(raw: bytes, row: DeviceRow) -> Case:
    try:
        envelope, sealed = split_case(raw)
        claimed = dsse.peek_unverified(
            envelope, payload_type=CASE_TYPE, max_bytes=3 * MAX_STATEMENT_BYTES
        )
        public = bytes.fromhex(row.public_key)
        if not is_signed_by(claimed, payload_type=CASE_TYPE, public=public):
            raise BadCase(f"expected an envelope signed by the key of {row.name}")
        case = parse_case(claimed.payload, sealed)
    except ProtocolError as error:
        raise BadCase(f"this is no captured case: {error}") from error
    if (case.device, case.public_key) != (row.name, row.public_key):
        raise BadCase(f"expected a case of {row.name}; got one of {case.device}")
    return case


def find(session: Session, number: int) -> CaseRow:
    """One case, or CaseUnknown."""
    found = session.get(CaseRow, number)
    if found is None:
        raise CaseUnknown(f"there is no captured case {number}")
    return found


def list_of(
    session: Session, meant: CaseFilter, *, page: PageRequest
) -> tuple[Sequence[CaseRow], str | None]:
    """The cases that are meant, the newest first."""
    query = select(CaseRow).where(*meant.clauses())
    return paginate(session, query, keys=[CaseRow.id], page=page, descending=True)


def delete_cases(session: Session, meant: CaseFilter, *, actor: str, now: datetime) -> int:
    """Delete the cases that are meant; return how many there were."""
    gone = session.execute(delete(CaseRow).where(*meant.clauses()))
    count = int(getattr(gone, "rowcount", 0))
    if count:
        told = {k: v for k, v in vars(meant).items() if v is not None}
        record(
            session, actor=actor, verb="capture.delete", object="captures", now=now,
            before={"cases": count, **told},
        )  # fmt: skip
    return count


def forget(session: Session, *, keep: timedelta, now: datetime) -> None:
    """Forget what is older than the setting says."""
    c = CaseRow
    old = select(c.id).where(c.received_at < now - keep).limit(500)
    session.execute(delete(c).where(c.id.in_(session.scalars(old).all())))
