"""Devices of before it was noted what they were told."""

from __future__ import annotations

from sqlalchemy import text

from pilotwave_server import migrate
from pilotwave_server.db import Database
from tests.migrations.test_facts_apart import insert

BEFORE = "refused_since"


def test_of_devices_of_before_it_is_not_known_and_nothing_else_changes(
    empty_database_url: str,
) -> None:
    migrate.upgrade(empty_database_url, BEFORE)
    db = Database(empty_database_url)
    with db.write() as session:
        insert(session, "devices", id=1, name="cam-1", state="enrolled", acked_event=7)
    migrate.upgrade(empty_database_url, "told_intervals")
    with db.read() as session:
        row = session.execute(text("SELECT name, acked_event, check_in_s FROM devices")).one()
        assert tuple(row) == ("cam-1", 7, None)
    migrate.downgrade(empty_database_url, BEFORE)
    with db.read() as session:
        assert session.scalar(text("SELECT name FROM devices")) == "cam-1"
    db.close()
