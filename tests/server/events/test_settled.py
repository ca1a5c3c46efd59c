"""On PostgreSQL rows may show out of order; no listener may step over one that shows late."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import delete, func, insert, select
from sqlalchemy.orm import Session

from pilotwave_server.audit.service import record
from pilotwave_server.db import Database
from pilotwave_server.devices.report_tables import DeviceHistoryRow
from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.events.feed import START, Types, read_events
from pilotwave_server.events.settled import Settled
from tests.conftest import KINDS


def write(db: Database, clock: Any, object: str) -> None:
    with db.write() as session:
        record(session, actor="server", verb="test.made", object=object, now=clock())


def test_what_is_committed_is_settled_after_a_few_looks(db: Database, clock: Any) -> None:
    settled = Settled(db)
    write(db, clock, "test/1")
    for _ in range(4):
        settled.look()
    assert settled.known
    with db.read() as session:
        found, place = read_events(session, Types([]), after=START, until=settled.place, limit=9)
    assert [event.object for event in found] == ["test/1"]
    assert place == settled.place


@pytest.mark.skipif("postgresql" not in KINDS, reason="needs PostgreSQL")
@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_a_place_is_not_settled_while_an_earlier_number_may_still_show(
    db: Database, clock: Any
) -> None:
    settled = Settled(db)
    with db.write() as slow:
        add_device(slow, clock, "slow")  # it has its number, and nobody sees it yet
        with db.write() as quick:
            add_device(quick, clock, "quick")
        for _ in range(6):
            settled.look()
        assert settled.place.history == 0
    for _ in range(4):
        settled.look()
    with db.read() as session:
        found, _ = read_events(session, Types([]), after=START, until=settled.place, limit=9)
    assert [event.object for event in found] == ["device/slow", "device/quick"]


def add_device(session: Session, clock: Any, name: str) -> int:
    """Add a device that something became of; returns the number of that."""
    device = DeviceRow(
        name=name, public_key="0" * 64, state="enrolled", revision=1, created_at=clock()
    )
    session.add(device)
    session.flush()
    row = {"device_id": device.id, "model": "m", "version": "1", "became": "healthy"}
    session.execute(insert(DeviceHistoryRow), [{**row, "at": clock()}])
    return session.scalar(select(func.max(DeviceHistoryRow.id))) or 0


def test_a_deleted_devices_numbers_are_not_given_again(db: Database, clock: Any) -> None:
    with db.write() as session:
        first = add_device(session, clock, "cam-1")
    with db.write() as session:
        session.execute(delete(DeviceRow))
    with db.write() as session:
        assert add_device(session, clock, "cam-2") > first
