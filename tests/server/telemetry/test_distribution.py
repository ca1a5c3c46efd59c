"""Versions over time: counted once a tick, kept within bounds, read in three grains."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from sqlalchemy import func, insert, select

from pilotwave_server.db import Database
from pilotwave_server.devices.report_tables import DeviceModelRow
from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.telemetry.distribution import (
    KEPT_TICKS,
    MOST_VERSIONS,
    OTHERS,
    Distribution,
    Period,
    distribution,
    note,
)
from pilotwave_server.telemetry.tables import VersionCountRow

NOON = datetime(2026, 1, 1, 12, 0, 30, tzinfo=timezone.utc)
INTERVAL_S = 300


def run(db: Database, versions: list[str]) -> None:
    """Have one device run each of the versions."""
    with db.write() as session:
        for n, version in enumerate(versions):
            row = DeviceRow(
                name=f"cam-{n}", public_key=str(n), state="enrolled", revision=0, created_at=NOON
            )
            session.add(row)
            session.flush()
            runs = {"device_id": row.id, "model": "detector", "state": "healthy", "since": NOON}
            session.execute(insert(DeviceModelRow).values(**runs, current_version=version))


def look(db: Database, period: Period, now: datetime, most: int = KEPT_TICKS) -> Distribution:
    with db.read() as session:
        found = distribution(
            session,
            models=["detector"],
            period=period,
            now=now,
            interval_s=INTERVAL_S,
            most=most,
        )
    return found.get("detector") or Distribution([], {})


def test_of_several_servers_one_writes_a_tick(db: Database) -> None:
    run(db, ["1.0.0", "1.0.0", "1.1.0"])
    assert note(db, now=NOON, interval_s=INTERVAL_S)
    assert not note(db, now=NOON + timedelta(seconds=60), interval_s=INTERVAL_S)
    assert note(db, now=NOON + timedelta(seconds=300), interval_s=INTERVAL_S)
    found = look(db, "recent", NOON + timedelta(minutes=10))
    assert found.times == [NOON.replace(second=0), NOON.replace(minute=5, second=0)]
    assert found.devices == {"1.0.0": [2, 2], "1.1.0": [1, 1]}


def test_what_is_kept_is_bounded_and_the_past_stays_in_hours_and_days(db: Database) -> None:
    run(db, ["1.0.0"])
    ticks, now = 0, NOON
    for hours in range(0, 24 * 70, 6):  # every six hours, off the full one, for 70 days
        for minutes in (0, 30):
            now = NOON + timedelta(hours=hours, minutes=minutes)
            ticks += note(db, now=now, interval_s=INTERVAL_S)
    assert ticks == 560
    with db.read() as session:
        kept = session.scalar(select(func.count()).select_from(VersionCountRow))
    # 60 days of the full hours, 70 of days, two days of the others
    assert kept is not None
    assert kept < 60 * 4 + 71 + 10
    assert len(look(db, "recent", now).times) < KEPT_TICKS
    assert 58 * 4 < len(look(db, "month", now).times) <= 60 * 4 + 1
    assert len(look(db, "years", now).times) == 70
    few = look(db, "month", now, most=20)
    assert len(few.times) <= 20
    assert few.times[-1] == look(db, "month", now).times[-1]


def test_many_versions_are_counted_as_others(db: Database) -> None:
    run(db, [f"1.{n}.0" for n in range(MOST_VERSIONS + 5)])
    note(db, now=NOON, interval_s=INTERVAL_S)
    found = look(db, "recent", NOON)
    assert len(found.devices) == MOST_VERSIONS + 1
    assert found.devices[OTHERS] == [5]
