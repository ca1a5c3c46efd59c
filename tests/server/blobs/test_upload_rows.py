"""Who may write an upload, and where it goes on, whatever hosts do at the same time."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from pilotwave_server.blobs import upload_rows as rows
from pilotwave_server.blobs.port import BlobBusy, OffsetMismatch
from pilotwave_server.blobs.upload_rows import HOLD, Held, Piece
from pilotwave_server.db import Database
from tests.conftest import START

SHA256 = "ab" * 32


def take(db: Database, *, offset: int = 0, after_s: float = 0, length: int = 100) -> Held:
    with db.write() as session:
        now = START + timedelta(seconds=after_s)
        return rows.take(session, SHA256, offset=offset, length=length, restart=False, now=now)


def add(db: Database, held: Held, start: int, size: int) -> None:
    with db.write() as session:
        rows.add(session, Piece(SHA256, start, size, held.holder), now=START)


def received(db: Database) -> int:
    with db.read() as session:
        return rows.received(session, SHA256)


def test_of_many_hosts_at_once_one_gets_the_hold(db: Database) -> None:
    held, busy, go = [], [], threading.Barrier(8)

    def host() -> None:
        go.wait()
        try:
            held.append(take(db))
        except BlobBusy as error:
            busy.append(error)

    threads = [threading.Thread(target=host) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(held), len(busy)) == (1, 7)


def test_a_hold_goes_to_another_when_it_ended_or_was_let_go(db: Database) -> None:
    first = take(db)
    add(db, first, 0, 40)
    with pytest.raises(BlobBusy):
        take(db, offset=40, after_s=HOLD.total_seconds() - 1)
    second = take(db, offset=40, after_s=HOLD.total_seconds())
    assert [piece[1:3] for piece in second.pieces] == [(0, 40)]
    # whoever lost it changes nothing any more
    with pytest.raises(BlobBusy):
        add(db, first, 40, 10)
    with pytest.raises(BlobBusy), db.write() as session:
        rows.renew(session, SHA256, first.holder, now=START)
    with pytest.raises(BlobBusy), db.write() as session:
        rows.end(session, SHA256, first.holder)
    with db.write() as session:
        rows.release(session, SHA256, first.holder)
    with pytest.raises(BlobBusy):
        take(db, offset=40, after_s=HOLD.total_seconds())
    with db.write() as session:
        rows.release(session, SHA256, second.holder)
    third = take(db, offset=40)
    add(db, third, 40, 60)
    assert received(db) == 100
    with db.write() as session:
        rows.end(session, SHA256, third.holder)
    assert received(db) == 0


def test_a_piece_fits_behind_those_before_it_or_is_refused(db: Database) -> None:
    held = take(db)
    add(db, held, 0, 40)
    for start in (0, 30, 50):
        with pytest.raises(BlobBusy):
            add(db, held, start, 10)
    assert received(db) == 40


def test_another_length_begins_anew_and_names_what_is_to_go(db: Database) -> None:
    held = take(db)
    add(db, held, 0, 40)
    with db.write() as session:
        rows.release(session, SHA256, held.holder)
    with pytest.raises(OffsetMismatch):
        take(db)
    again = take(db, length=90)
    assert (again.pieces, [p.size for p in again.dropped]) == ([], [40])
    assert received(db) == 0


def test_old_uploads_are_forgotten_unless_somebody_writes(db: Database) -> None:
    held = take(db)
    add(db, held, 0, 40)
    later = START + timedelta(days=8)

    def forget(now_s: float) -> int:
        with db.write() as session:
            now = START + timedelta(seconds=now_s)
            return len(rows.forget_old(session, before=later, now=now))

    assert forget(10) == 0
    assert forget(HOLD.total_seconds() + 1) == 1
    assert received(db) == 0
