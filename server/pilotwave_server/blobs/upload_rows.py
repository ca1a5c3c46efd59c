"""Uploads into a bucket as rows: who writes, which pieces are stored, where it goes on.

A hold is a name with an end. Whoever lost theirs, having been silent for too long, finds that out
at the next change: each compares the holder. Any number of hosts may share the table.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import delete, or_, select, update
from sqlalchemy.orm import Session

from pilotwave_server.blobs.port import BlobBusy, OffsetMismatch
from pilotwave_server.blobs.tables import UploadPieceRow, UploadRow
from pilotwave_server.db import insert_missing

HOLD = timedelta(seconds=60)
UPLOADS = "uploads"


class Piece(NamedTuple):
    """Some bytes of a blob as an object of their own."""

    sha256: str
    start: int
    size: int
    holder: str

    @property
    def key(self) -> str:
        """The name of the object."""
        return f"{UPLOADS}/{self.sha256}/{self.start:014d}-{self.holder}"


class Held(NamedTuple):
    """A hold that was taken: its holder, the pieces that it goes on from, and those that count for
    nothing any more."""

    holder: str
    pieces: list[Piece]
    dropped: list[Piece]


def received(session: Session, sha256: str) -> int:
    """How many bytes of a blob are stored in pieces."""
    u = UploadRow
    return session.scalar(select(u.received).where(u.sha256 == sha256)) or 0


def take(
    session: Session, sha256: str, *, offset: int, length: int, restart: bool, now: datetime
) -> Held:
    """Take hold of an upload, making it if it is new. BlobBusy, OffsetMismatch."""
    first = {"sha256": sha256, "length": length, "received": 0, "touched_at": now}
    insert_missing(session, UploadRow, [first])
    row = session.get_one(UploadRow, sha256, with_for_update=True)
    if row.held_until is not None and row.held_until > now:
        raise BlobBusy(sha256)
    pieces, dropped = find_pieces(session, sha256), []
    if restart or row.length != length:
        # an upload of another length is no beginning of this one
        pieces, dropped = [], pieces
        _forget_pieces(session, sha256)
        row.length, row.received = length, 0
    if offset != row.received:
        raise OffsetMismatch(expected=row.received, got=offset)
    row.holder, row.held_until, row.touched_at = secrets.token_hex(12), now + HOLD, now
    return Held(row.holder, pieces, dropped)


def renew(session: Session, sha256: str, holder: str, *, now: datetime) -> None:
    """Hold on for longer. BlobBusy where another has it by now."""
    _change(session, sha256, holder, held_until=now + HOLD, touched_at=now)


def add(session: Session, piece: Piece, *, now: datetime) -> None:
    """Note a piece that is stored, right behind those before it. BlobBusy as above."""
    u = UploadRow
    _change(
        session,
        piece.sha256,
        piece.holder,
        and_=u.received == piece.start,
        received=u.received + piece.size,
        held_until=now + HOLD,
        touched_at=now,
    )
    session.add(UploadPieceRow(**piece._asdict()))


def release(session: Session, sha256: str, holder: str) -> None:
    """Let go, if it is held still."""
    u = UploadRow
    mine = update(u).where(u.sha256 == sha256, u.holder == holder)
    session.execute(mine.values(holder=None, held_until=None))


def end(session: Session, sha256: str, holder: str) -> None:
    """Forget an upload that is complete or cannot be continued. BlobBusy as above."""
    _change(session, sha256, holder, held_until=None)
    _forget(session, [sha256])


def find_pieces(session: Session, sha256: str) -> list[Piece]:
    """Its pieces, in their order."""
    p = UploadPieceRow
    found = select(p.sha256, p.start, p.size, p.holder).where(p.sha256 == sha256).order_by(p.start)
    return [Piece(*row) for row in session.execute(found).tuples()]


def forget_old(session: Session, *, before: datetime, now: datetime) -> list[Piece]:
    """Forget the uploads that nobody has touched since; return their pieces."""
    u = UploadRow
    free = or_(u.held_until.is_(None), u.held_until < now)
    old = session.scalars(
        select(u.sha256).where(u.touched_at < before, free).with_for_update()
    ).all()
    pieces = [piece for sha256 in old for piece in find_pieces(session, sha256)]
    _forget(session, old)
    return pieces


def known(session: Session, keys: Iterable[str]) -> set[str]:
    """Those of these objects that are pieces of an upload."""
    digests = {key.split("/")[1] for key in keys if key.count("/") == 2}
    return {piece.key for sha256 in digests for piece in find_pieces(session, sha256)}


def _change(session: Session, sha256: str, holder: str, and_: Any = True, **values: Any) -> None:
    u = UploadRow
    mine = update(u).where(u.sha256 == sha256, u.holder == holder, and_).values(**values)
    done = session.execute(mine, execution_options={"synchronize_session": False})
    if not done.rowcount:  # type: ignore[attr-defined]  # an update's result has it
        raise BlobBusy(sha256)


def _forget(session: Session, digests: Iterable[str]) -> None:
    for sha256 in digests:
        _forget_pieces(session, sha256)
        session.execute(delete(UploadRow).where(UploadRow.sha256 == sha256))


def _forget_pieces(session: Session, sha256: str) -> None:
    session.execute(delete(UploadPieceRow).where(UploadPieceRow.sha256 == sha256))
