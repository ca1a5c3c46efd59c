"""Processes on one PostgreSQL know of each other, and whether devices reach any of them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import text

from pilotwave_server.db import Database
from pilotwave_server.hosts.heartbeat import Heartbeat
from pilotwave_server.hosts.living import STALE
from tests.conftest import FakeClock

pytestmark = [
    pytest.mark.needs("postgresql"),
    pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True),
]


@pytest.fixture
def two(db: Database, clock: FakeClock) -> Iterator[tuple[Heartbeat, Heartbeat]]:
    a, b = Heartbeat(db, clock), Heartbeat(db, clock)
    b.start()
    with db.write() as session:
        # both run here; devices that reach one do not reach the other
        session.execute(text("UPDATE server_processes SET host = 'b'"))
    a.start()
    yield a, b
    a.stop()
    b.stop()


def kill(heartbeat: Heartbeat, db: Database) -> None:
    """It beats no more, and says nothing of its end."""
    heartbeat._again.stop()
    with db.write() as session:
        statement = (
            "UPDATE server_processes SET host = 'b', seen_at = seen_at - :age WHERE id = :id"
        )
        session.execute(text(statement), {"id": heartbeat._me.id, "age": 2 * STALE})


def test_each_knows_how_many_live(two: tuple[Heartbeat, Heartbeat]) -> None:
    a, b = two
    a.beat()
    assert (a.fleet.processes, a.fleet.hosts) == (2, 2)
    assert abs(a.skew_s) < 60
    b.stop()
    a.beat()
    assert a.fleet.processes == 1


def test_a_host_that_no_device_reaches_judges_nothing_until_one_does(
    db: Database, two: tuple[Heartbeat, Heartbeat], clock: FakeClock
) -> None:
    a, b = two
    began = clock()
    b.heard()
    b.beat()
    clock.advance(minutes=5)
    a.beat()
    assert a.listening_since(clock()) == began, "b hears devices"
    kill(b, db)
    clock.advance(hours=1)
    a.beat()
    assert a.listening_since(clock()) == clock()
    clock.advance(hours=1)
    assert a.listening_since(clock()) == clock()
    a.heard()
    heard = clock()
    clock.advance(seconds=5)
    a.beat()
    assert a.listening_since(clock()) == heard
    clock.advance(minutes=10)
    a.beat()
    assert a.listening_since(clock()) == heard
    assert clock() - heard > timedelta(minutes=5)
