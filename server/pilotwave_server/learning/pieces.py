"""Take an update in pieces, so that a line that breaks costs one piece and not all of them.

1 the statement that the device signed comes first, and is checked before any number is kept
2 pieces come one behind the other, all of `PIECE_BYTES` but the last
3 with the last one the update is whole, and is checked and kept as one that came at once

Locks are taken in the order device, round, upload; a round that ends takes the last two.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import ClassVar

from sqlalchemy import delete, exists, select, update
from sqlalchemy.orm import Session

from pilotwave_protocol.errors import BadMessage
from pilotwave_protocol.learning.update import PIECE_BYTES, join_update, split_piece
from pilotwave_server.blobs.port import OffsetMismatch
from pilotwave_server.db import Database
from pilotwave_server.devices.service import get_device
from pilotwave_server.errors import Invalid, NotFound
from pilotwave_server.learning import updates
from pilotwave_server.learning.check_numbers import ImpossibleUpdate
from pilotwave_server.learning.experiments import plan_of
from pilotwave_server.learning.statements import BadUpdate
from pilotwave_server.learning.tables import UpdatePieceRow, UpdateUploadRow

KEEP = timedelta(days=1)
"""An upload that nothing was added to for so long is forgotten."""


class BadPiece(Invalid):
    """Not a piece of an update, or not of the size that is due."""

    code: ClassVar[str] = "bad_piece"


class UploadUnknown(NotFound):
    """The device has begun no such update, it is whole, or it was forgotten: begin it."""

    code: ClassVar[str] = "upload_unknown"


def begin(session: Session, envelope: bytes, *, device: str, now: datetime) -> int:
    """Return how many bytes of numbers of the update that `device` signed are here.

    DeviceUnknown, BadUpdate, RoundOver, UpdateRepeated, RoundFull.
    """
    row = get_device(session, device, lock=True)
    found, where, experiment = updates.waited_for(session, envelope, row, now)
    if updates.is_kept(session, found, where, row):
        return found.size
    upload = session.get(UpdateUploadRow, row.id)
    if upload is not None and (upload.round_id, upload.envelope) == (where.id, envelope):
        return upload.received
    updates.check_room(session, found.size, where, row, plan_of(session, experiment))
    forget(session, row.id)
    session.add(
        UpdateUploadRow(
            device_id=row.id,
            round_id=where.id,
            sha256=found.numbers,
            size=found.size,
            received=0,
            touched_at=now,
            envelope=envelope,
        )
    )
    return 0


def take(db: Database, raw: bytes, *, device: str, now: datetime) -> None:
    """Keep a piece; with the last one, the update. One that turns out to be wrong as a whole is
    forgotten, so that its device can send it anew.

    DeviceUnknown, BadPiece, UploadUnknown, OffsetMismatch, ImpossibleUpdate, and what
    `updates.take` raises.
    """
    try:
        with db.write() as session:
            impossible = _add(session, raw, device=device, now=now)
    except BadUpdate:
        with db.write() as session:
            forget(session, get_device(session, device).id)
        raise
    if impossible is not None:
        raise impossible


def _add(session: Session, raw: bytes, *, device: str, now: datetime) -> ImpossibleUpdate | None:
    try:
        piece = split_piece(raw)
    except BadMessage as error:
        raise BadPiece(str(error)) from error
    row = get_device(session, device, lock=True)
    u = UpdateUploadRow
    upload = session.get(u, row.id)
    if upload is None or upload.sha256 != piece.numbers:
        raise UploadUnknown(f"{device} has begun no update with the numbers {piece.numbers}")
    if piece.offset != upload.received:
        raise OffsetMismatch(expected=upload.received, got=piece.offset)
    due = min(PIECE_BYTES, upload.size - upload.received)
    if len(piece.content) != due:
        raise BadPiece(f"expected {due} bytes from {piece.offset} on; got {len(piece.content)}")
    if piece.offset + due == upload.size:
        whole = join_update(upload.envelope, _stored(session, row.id) + piece.content)
        return updates.take(session, whole, device=device, now=now)
    further = update(u).where(u.device_id == row.id, u.received == piece.offset)
    done = session.execute(further.values(received=piece.offset + due, touched_at=now))
    if not getattr(done, "rowcount", 0):
        raise UploadUnknown(f"the round of this update of {device} has ended")
    session.add(UpdatePieceRow(device_id=row.id, start=piece.offset, content=piece.content))
    return None


def _stored(session: Session, device_id: int) -> bytes:
    p = UpdatePieceRow
    return b"".join(
        session.scalars(select(p.content).where(p.device_id == device_id).order_by(p.start))
    )


def forget(session: Session, device_id: int) -> None:
    """Forget what has come of a device's update."""
    session.execute(delete(UpdateUploadRow).where(UpdateUploadRow.device_id == device_id))


def forget_old(db: Database, *, now: datetime) -> None:
    """Forget the uploads that nothing was added to for a day."""
    old = UpdateUploadRow.touched_at < now - KEEP
    with db.read() as session:
        if not session.scalar(select(exists().where(old))):
            return
    with db.write() as session:
        session.execute(delete(UpdateUploadRow).where(old))
