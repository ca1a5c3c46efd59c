"""One host hears of another's change when it is committed, and goes on polling where it cannot."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import text

from pilotwave_server.db import Database, next_revision, touch_fleet
from pilotwave_server.fleet.revision_listener import RevisionListener
from pilotwave_server.fleet.setup import Watcher
from pilotwave_server.fleet.state import FleetState
from pilotwave_server.registry.trust import TrustStore
from pilotwave_server.settings import Settings

pytestmark = [
    pytest.mark.needs("postgresql"),
    pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True),
]
NEVER_S = 3600.0
PATIENCE_S = 20.0


class Told:
    """Counts its calls."""

    def __init__(self) -> None:
        self.called = threading.Semaphore(0)

    def __call__(self) -> None:
        self.called.release()

    def within(self, seconds: float) -> bool:
        return self.called.acquire(timeout=seconds)


@contextmanager
def listening(url: str, tell: Callable[[], object]) -> Iterator[RevisionListener]:
    listener = RevisionListener(url, tell)
    listener.start()
    try:
        yield listener
    finally:
        listener.stop()


def test_a_commit_that_moves_the_counter_is_heard_and_no_other(
    db: Database, database_url: str
) -> None:
    told = Told()
    with listening(database_url, told):
        assert told.within(PATIENCE_S), "once at the beginning: something may have been missed"
        with db.write() as session:
            next_revision(session)
            assert not told.within(0.3), "not before the commit"
        assert told.within(PATIENCE_S)
        with db.write() as session:
            session.execute(text("UPDATE fleet_state SET fleet = fleet"))
        assert not told.within(0.3)


def test_another_host_s_picture_is_new_long_before_it_would_look(
    db: Database, database_url: str, settings: Settings
) -> None:
    other = Database(database_url)
    fleet = FleetState(other, TrustStore(other, settings.data_dir))
    watcher = Watcher(fleet, interval_s=NEVER_S)
    watcher.start()
    with listening(database_url, watcher.wake) as listener:
        until(lambda: listener.listening)
        with db.write() as session:
            revision = touch_fleet(session)
        until(lambda: fleet.snapshot.revision == revision)
    watcher.stop()
    other.close()


def test_a_lost_connection_is_made_again_and_what_was_missed_is_told(
    db: Database, database_url: str
) -> None:
    told = Told()
    with listening(database_url, told) as listener:
        assert told.within(PATIENCE_S)
        with db.write() as session:
            end = (
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
            )
            assert session.execute(text(end)).all()
        until(lambda: not listener.listening)
        with db.write() as session:
            next_revision(session)
        assert told.within(PATIENCE_S)
        until(lambda: listener.listening)
        with db.write() as session:
            next_revision(session)
        assert told.within(PATIENCE_S)


def test_a_host_that_cannot_listen_goes_on_by_looking(
    db: Database, database_url: str, settings: Settings
) -> None:
    fleet = FleetState(db, TrustStore(db, settings.data_dir))
    watcher = Watcher(fleet, interval_s=0.1)
    watcher.start()
    with listening("postgresql://nobody@127.0.0.1:1/none", watcher.wake) as listener:
        with db.write() as session:
            revision = touch_fleet(session)
        until(lambda: fleet.snapshot.revision == revision)
        assert not listener.listening
    watcher.stop()


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)
