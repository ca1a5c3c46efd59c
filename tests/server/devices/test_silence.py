"""When a device is silent: by what it was told, and alike in every list, count and filter."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, event, select, update

from pilotwave_server.context import Context
from pilotwave_server.db import Database
from pilotwave_server.devices.intervals import every_s
from pilotwave_server.devices.silence import Silence, silence
from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.devices.views import standing
from pilotwave_server.fleet.last_seen import LastSeen
from pilotwave_server.fleet.state import FleetState
from pilotwave_server.inventory.finding import DeviceFilter, matching
from pilotwave_server.settings import Settings
from tests.server.fleet_fixtures import Fleet

NOW = datetime(2026, 11, 29, 3, 0, tzinfo=timezone.utc)
DAY = 86_400
ON_BATTERY = {"agent.profile": "battery"}


def device(number: int, **more: Any) -> DeviceRow:
    told: dict[str, Any] = {
        "name": f"cam-{number}",
        "public_key": f"{number:064x}",
        "state": "enrolled",
        "revision": 1,
        "created_at": NOW,
        "last_seen": NOW,
        "labels": {},
        "facts": {},
    }
    return DeviceRow(**{**told, **more})


def found(db: Database, quiet: Silence, **wanted: Any) -> list[str]:
    with db.read() as session:
        rules = matching(session, DeviceFilter(**wanted), quiet)
        return list(session.scalars(select(DeviceRow.name).where(*rules).order_by(DeviceRow.name)))


@pytest.mark.parametrize(
    ("interval_s", "told", "seen_ago_s", "facts", "silent"),
    [
        # it was told what the server tells now
        (900, 900, 2700, {}, False),
        (900, 900, 2771, {}, True),
        (10, 10, 49, {}, False),  # polls are written down in a trickle
        (10, 10, 51, {}, True),
        # told once a day, and the server's interval was shortened since
        (60, DAY, 3600, {}, False),
        (60, DAY, 2 * DAY, {}, False),
        (60, DAY, 4 * DAY, {}, True),
        # told once a minute, and the interval was lengthened since
        (DAY, 60, 600, {}, True),
        (DAY, 60, 200, {}, False),
        # told at a time when that was not noted: the setting, and what its profile says
        (60, None, 200, {}, False),
        (60, None, 300, {}, True),
        (60, None, 300, ON_BATTERY, False),
        (60, None, 2800, ON_BATTERY, True),
        (60, None, 300, {"agent.profile": "standard"}, True),
    ],
)
def test_silence_goes_by_the_interval_that_the_device_was_told(
    db: Database,
    interval_s: int,
    told: int | None,
    seen_ago_s: int,
    facts: dict[str, Any],
    silent: bool,
) -> None:
    quiet = silence(Settings(check_in_interval_s=interval_s), NOW)
    last_seen = NOW - timedelta(seconds=seen_ago_s)
    row = device(1, facts=facts, last_seen=last_seen, check_in_s=told)
    with db.write() as session:
        session.add_all([row, device(2, last_seen=None)])
        session.flush()
        assert quiet.is_silent(row) == silent
    assert ("cam-1" in found(db, quiet, standing="silent")) == silent
    assert ("cam-1" in found(db, quiet, standing="online")) != silent
    assert "cam-2" in found(db, quiet, standing="silent")


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    interval_s=st.integers(1, DAY),
    rows=st.lists(
        st.tuples(
            st.none() | st.integers(0, 5 * DAY),
            st.none() | st.integers(1, DAY),
            st.sampled_from([{}, ON_BATTERY, {"agent.profile": 7}]),
        ),
        min_size=1,
        max_size=10,
    ),
)
def test_the_filter_takes_exactly_those_that_the_list_calls_silent(
    db: Database, interval_s: int, rows: list[tuple[int | None, int | None, dict[str, Any]]]
) -> None:
    quiet = silence(Settings(check_in_interval_s=interval_s), NOW)
    with db.write() as session:
        session.execute(delete(DeviceRow))
        made = [
            device(
                n,
                last_seen=None if ago is None else NOW - timedelta(seconds=ago),
                check_in_s=told,
                facts=facts,
            )
            for n, (ago, told, facts) in enumerate(rows)
        ]
        session.add_all(made)
        session.flush()
        words = {row.name: standing(row, row.last_seen or NOW, quiet) for row in made}
    for word in ("silent", "online"):
        assert found(db, quiet, standing=word) == sorted(n for n, w in words.items() if w == word)


@pytest.mark.parametrize(
    ("interval_s", "profile", "told"),
    [(60, None, 60), (60, "battery", 900), (1800, "battery", 1800), (60, 7, 60)],
)
def test_a_profile_has_a_floor_of_its_own(interval_s: int, profile: object, told: int) -> None:
    assert every_s(interval_s, {"agent.profile": profile}) == told


def standings(fleet: Fleet) -> tuple[str, list[str], int]:
    """cam-1 in the list, the filter's devices, and how many are counted."""
    api = fleet.operator
    word = api.get("/api/v1/devices/cam-1").json()["standing"]
    query = {"standing": "silent"}
    silent = [d["name"] for d in api.get("/api/v1/devices", params=query).json()["items"]]
    return word, silent, api.get("/api/v1/device-count", params=query).json()["devices"]


def row_of(context: Context, name: str = "cam-1") -> DeviceRow:
    with context.db.read() as session:
        return session.scalars(select(DeviceRow).where(DeviceRow.name == name)).one()


@contextmanager
def statements(db: Database, *, mine: bool = False) -> Iterator[list[str]]:
    """What is sent to the database meanwhile; `mine`: by this thread alone."""
    seen: list[str] = []
    me = threading.get_ident()

    def note(connection: Any, cursor: Any, statement: str, *more: Any) -> None:
        if not mine or threading.get_ident() == me:
            seen.append(statement)

    event.listen(db.writer, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(db.writer, "before_cursor_execute", note)


def test_a_check_in_notes_what_the_device_was_told_and_writes_no_row_twice(
    fleet: Fleet, context: Context
) -> None:
    camera = fleet.device("cam-1")
    every = context.settings.check_in_interval_s
    assert row_of(context).check_in_s == every
    with statements(context.db) as sent:
        assert camera.check_in(facts=ON_BATTERY).status_code == 200
        assert row_of(context).check_in_s == max(every, 900)
        assert camera.check_in().status_code == 200
    assert row_of(context).check_in_s == max(every, 900), "its facts said so before"
    writes = [s for s in sent if s.startswith("UPDATE devices") and "check_in_s" in s]
    assert len(writes) == 2, "one for each check-in"


def test_a_device_of_before_goes_by_the_setting_until_it_checks_in(
    fleet: Fleet, context: Context
) -> None:
    camera = fleet.device("cam-1")
    with context.db.write() as session:
        session.execute(update(DeviceRow).values(check_in_s=None))
    assert standings(fleet) == ("online", [], 0)
    camera.check_in()
    assert row_of(context).check_in_s is not None


def test_list_filter_and_count_agree_while_a_poll_is_noted_and_not_written(
    fleet: Fleet, context: Context, clock: Any
) -> None:
    camera = fleet.device("cam-1")
    notes = LastSeen(context.db, context.get(FleetState))
    clock.advance(days=5)
    assert standings(fleet) == ("silent", ["cam-1"], 1)
    record = context.get(FleetState).records["cam-1"]
    record.seen = clock().timestamp()
    notes.note(record)
    assert standings(fleet) == ("silent", ["cam-1"], 1)
    notes.flush()
    assert standings(fleet) == ("online", [], 0)
    assert camera.check_in().status_code == 200
