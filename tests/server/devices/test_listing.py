"""The list of devices: every sort goes over each device once, whatever is empty in it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import pytest

from pilotwave_server.db import Database
from pilotwave_server.devices.report_tables import DeviceModelRow
from pilotwave_server.devices.service import SORTS, Standing, list_devices
from pilotwave_server.devices.silence import Silence
from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.inventory.finding import DeviceFilter, matching
from pilotwave_server.paging import EMPTY, BadCursor, PageRequest

NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
SEEN = [5, None, 3, 3, None, 1, 4, None]  # minutes after noon, by device


@pytest.fixture(autouse=True)
def fleet(db: Database) -> None:
    with db.write() as session:
        for n, minutes in enumerate(SEEN):
            seen = None if minutes is None else NOON + timedelta(minutes=minutes)
            row = DeviceRow(
                name=f"cam-{n}", public_key=str(n), revision=0, created_at=NOON, last_seen=seen,
                state="enrolled" if n != 7 else "pending", agent=f"0.{n % 3}",
            )  # fmt: skip
            session.add(row)
            session.flush()
            state = "failed" if n == 2 else "healthy"
            runs = {"device_id": row.id, "model": "detector", "current_version": "1.0.0"}
            session.add(DeviceModelRow(**runs, state=state, since=NOON))


def walk(db: Database, sort: str, limit: int) -> Iterator[list[DeviceRow]]:
    cursor = None
    with db.read() as session:
        while True:
            page = PageRequest(limit, cursor)
            rows, cursor = list_devices(session, page=page, sort=sort)
            yield rows
            if cursor is None:
                return


@pytest.mark.parametrize("sort", [*SORTS, *(f"-{name}" for name in SORTS)])
@pytest.mark.parametrize("limit", [1, 2, 5, 50])
def test_pages_of_every_sort_hold_each_device_once_in_order(
    db: Database, sort: str, limit: int
) -> None:
    pages = list(walk(db, sort, limit))
    assert all(len(page) == limit for page in pages[:-1])
    rows = [row for page in pages for row in page]
    assert sorted(row.name for row in rows) == [f"cam-{n}" for n in range(len(SEEN))]
    keys = [getattr(row, sort.removeprefix("-")) for row in rows]
    there = [key for key in keys if key is not None]
    assert there == sorted(there, reverse=sort.startswith("-"))
    assert keys == there + [None] * (len(keys) - len(there)), "never seen comes last"


@pytest.mark.parametrize(
    ("standing", "names"),
    [
        ("online", ["cam-0", "cam-6"]),
        ("silent", ["cam-1", "cam-2", "cam-3", "cam-4", "cam-5"]),  # never seen is silent too
        ("failing", ["cam-2"]),
    ],
)
def test_devices_of_a_standing(db: Database, standing: Standing, names: list[str]) -> None:
    quiet = Silence(NOON + timedelta(minutes=6), 60)  # seen after 12:03
    with db.read() as session:
        rules = matching(session, DeviceFilter(standing=standing), quiet)
        rows, _ = list_devices(session, page=PageRequest(), rules=rules)
    assert [row.name for row in rows] == names


@pytest.mark.parametrize("cursor", [f"{EMPTY}nonsense", f"{EMPTY}{EMPTY}", "W10"])
def test_a_cursor_of_another_list_is_refused(db: Database, cursor: str) -> None:
    with db.read() as session, pytest.raises(BadCursor):
        list_devices(session, page=PageRequest(5, cursor), sort="last_seen")
