"""When devices were last seen is written bit by bit, never backwards; a starting server process
loads its devices before they ask."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import Any

import pytest
from sqlalchemy import select

from pilotwave_server.context import Context
from pilotwave_server.db import Database
from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.fleet import last_seen as fleet_last_seen
from pilotwave_server.fleet.last_seen import LastSeen, write_seen
from pilotwave_server.fleet.preload import Preload
from pilotwave_server.fleet.state import FleetState
from pilotwave_server.registry.trust import TrustStore
from tests.server.fleet_fixtures import Fleet

NOON = datetime(2026, 2, 1, 12, tzinfo=timezone.utc).timestamp()


def last_seen(db: Database) -> dict[int, float]:
    with db.read() as session:
        rows = session.execute(select(DeviceRow.id, DeviceRow.last_seen)).tuples().all()
    return {id: at.timestamp() for id, at in rows if at is not None}


def test_what_is_written_later_but_seen_earlier_changes_nothing(
    fleet: Fleet, context: Context
) -> None:
    fleet.device("cam-1")
    fleet.device("cam-2")
    first, second = sorted(last_seen(context.db))
    with context.db.write() as session:
        write_seen(session, {second: NOON + 5.25, first: NOON})
    assert last_seen(context.db) == {first: NOON, second: NOON + 5.25}
    with context.db.write() as session:
        write_seen(session, {first: NOON - 1, second: NOON + 6})
    assert last_seen(context.db) == {first: NOON, second: NOON + 6}


def test_device_that_is_being_written_is_not_waited_for(fleet: Fleet, context: Context) -> None:
    if context.db.is_sqlite:
        pytest.skip("SQLite has one writer at a time")
    fleet.device("cam-1")
    fleet.device("cam-2")
    first, second = sorted(last_seen(context.db))
    with context.db.write() as other:
        other.execute(select(DeviceRow.id).where(DeviceRow.id == first).with_for_update())
        with context.db.write() as session:
            write_seen(session, {first: NOON, second: NOON})
    assert last_seen(context.db)[second] == NOON
    assert last_seen(context.db)[first] < NOON


def test_a_round_writes_no_more_than_its_share(
    fleet: Fleet, context: Context, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"cam-{n}" for n in range(5)]
    for name in names:
        fleet.device(name)
    monkeypatch.setattr(fleet_last_seen, "ROWS_PER_S", 2 / fleet_last_seen.FLUSH_S)
    notes = LastSeen(context.db, context.get(FleetState))
    for record in context.get(FleetState).load(names).values():
        record.seen = NOON
        for _ in range(3):  # polls, until its turn comes
            notes.note(record)
    written = []
    for _ in range(4):
        notes.flush()
        written.append(sum(at == NOON for at in last_seen(context.db).values()))
    assert written == [2, 4, 5, 5]


def test_starting_process_has_the_enrolled_devices_in_memory(
    fleet: Fleet, context: Context
) -> None:
    for name in ("cam-1", "cam-2", "cam-3"):
        fleet.device(name)
    with context.db.write() as session:
        session.execute(
            DeviceRow.__table__.update()
            .where(DeviceRow.name == "cam-3")
            .values(state="decommissioned")
        )
    fresh = FleetState(context.db, context.get(TrustStore))
    fresh.refresh()
    worker = Preload(context.db, fresh)
    worker.start()
    deadline = time.monotonic() + 60
    while len(fresh.records) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    worker.stop()
    assert set(fresh.records) == {"cam-1", "cam-2"}
