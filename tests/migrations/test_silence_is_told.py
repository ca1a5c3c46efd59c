"""Nobody is silent by an upgrade, and whoever looks first after it knows that nobody looked."""

from __future__ import annotations

from sqlalchemy import text

from pilotwave_server import migrate
from pilotwave_server.db import Database
from tests.migrations.test_facts_apart import insert

BEFORE = "purged_blobs"


def test_no_device_is_reported_yet_and_nothing_else_changes(empty_database_url: str) -> None:
    migrate.upgrade(empty_database_url, BEFORE)
    db = Database(empty_database_url)
    with db.write() as session:
        insert(session, "devices", id=1, name="cam-1", state="enrolled", check_in_s=60)
    migrate.upgrade(empty_database_url, "silence_is_told")
    with db.read() as session:
        row = session.execute(text("SELECT name, check_in_s, silent_since FROM devices")).one()
        assert tuple(row) == ("cam-1", 60, None)
        looked_at = session.scalar(text("SELECT looked_at FROM silence_watch WHERE id = 1"))
        assert str(looked_at).startswith("1970")
    migrate.downgrade(empty_database_url, BEFORE)
    with db.read() as session:
        assert session.scalar(text("SELECT name FROM devices")) == "cam-1"
    db.close()
