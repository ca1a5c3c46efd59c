"""Devices that fall silent are told of once, by one process, and again when they are heard."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Select, select, text, update

from pilotwave_server.audit.tables import AuditEventRow
from pilotwave_server.context import Context
from pilotwave_server.db import Database
from pilotwave_server.devices import service, silence_sweep
from pilotwave_server.devices.silence import silence
from pilotwave_server.devices.silence_sweep import SilenceSweep
from pilotwave_server.devices.silence_watch import Watch
from pilotwave_server.devices.tables import DeviceRow, SilenceWatchRow
from pilotwave_server.settings import Settings
from tests.conftest import START, FakeClock
from tests.server.devices.test_silence import ON_BATTERY, device, statements
from tests.server.fleet_fixtures import Fleet, only_sqlite

SETTINGS = Settings(check_in_interval_s=60)
SILENT_S = 3 * 60 + 70
"""After so long a device that was told 60 s is silent."""


def add(db: Database, *rows: DeviceRow) -> None:
    with db.write() as session:
        session.add_all(rows)


def camera(number: int, **more: Any) -> DeviceRow:
    told = {"last_seen": START, "check_in_s": 60, "created_at": START, "enrolled_at": START}
    return device(number, **{**told, **more})


def events(db: Database) -> list[tuple[str, str, int, list[str]]]:
    """(verb, object, devices, names) of each event about silence so far."""
    e = AuditEventRow
    query = select(e).where(e.verb.in_(["device.silent", "device.heard"])).order_by(e.id)
    with db.read() as session:
        rows = session.scalars(query).all()
        return [(r.verb, r.object, r.after["devices"], r.after["names"]) for r in rows if r.after]


def hear(db: Database, *names: str, at: datetime) -> None:
    with db.write() as session:
        session.execute(update(DeviceRow).where(DeviceRow.name.in_(names)).values(last_seen=at))


def silent(*names: str) -> tuple[str, str, int, list[str]]:
    where = f"device/{names[0]}" if len(names) == 1 else "fleet"
    return "device.silent", where, len(names), list(names)


def heard(*names: str) -> tuple[str, str, int, list[str]]:
    return "device.heard", *silent(*names)[1:]


class Servers:
    """Server processes that look each minute, on one clock."""

    def __init__(self, db: Database, clock: FakeClock, settings: Settings = SETTINGS) -> None:
        self._db, self._clock, self._settings = db, clock, settings
        self.start()

    def start(self, processes: int = 1) -> None:
        made = [SilenceSweep(self._db, self._settings, self._clock) for _ in range(processes)]
        self._sweeps: Sequence[SilenceSweep] = made

    def stay_up(self, **span: float) -> None:
        """Let a longer time pass in which they looked, and had nothing to tell."""
        now = self._clock.advance(**span)
        with self._db.write() as session:
            session.execute(update(SilenceWatchRow).values(looked_at=now))

    def run(self, **span: float) -> None:
        """Let so much time pass, with a look each half minute."""
        until = self._clock() + timedelta(**span)
        while self._clock() < until:
            self._clock.advance(seconds=min(30, (until - self._clock()).total_seconds()))
            for sweep in self._sweeps:
                sweep.look()


@pytest.fixture
def servers(db: Database, clock: FakeClock) -> Servers:
    """Of a fleet that was watched all the time."""
    add(db, camera(0, last_seen=START + timedelta(days=365)))
    hour_ago = clock() - timedelta(hours=1)
    with db.write() as session:
        watch = {"looked_at": clock(), "away_from": hour_ago, "away_until": hour_ago}
        session.execute(update(SilenceWatchRow).values(watch))
    made = Servers(db, clock)
    made.stay_up(minutes=10)
    return made


def test_a_device_that_falls_silent_is_told_of_once_and_again_when_it_is_heard(
    db: Database, servers: Servers, clock: FakeClock
) -> None:
    add(db, camera(1, last_seen=clock()))
    servers.run(seconds=SILENT_S - 1)
    assert events(db) == []
    servers.run(minutes=10)
    assert events(db) == [silent("cam-1")]
    with db.read() as session:
        query = select(DeviceRow.silent_since).where(DeviceRow.name == "cam-1")
        since = session.scalar(query)
        assert since is not None
        assert clock() - since > timedelta(minutes=8)
    hear(db, "cam-1", at=clock())
    servers.run(minutes=2)
    assert events(db) == [silent("cam-1"), heard("cam-1")]
    servers.run(minutes=10)
    assert events(db) == [silent("cam-1"), heard("cam-1"), silent("cam-1")]


@pytest.mark.parametrize(
    ("more", "after_s"),
    [
        ({}, SILENT_S),
        ({"check_in_s": 600}, 3 * 600 + 70),  # the server's was shortened since
        ({"check_in_s": None}, SILENT_S),  # told before that was noted
        ({"check_in_s": None, "facts": ON_BATTERY}, 3 * 900 + 70),
        ({"last_seen": None}, SILENT_S),  # let in, and never came
        ({"last_seen": None, "check_in_s": None, "facts": ON_BATTERY}, 3 * 900 + 70),
    ],
)
def test_it_is_told_by_the_interval_that_the_device_was_told(
    db: Database, servers: Servers, clock: FakeClock, more: dict[str, Any], after_s: int
) -> None:
    now = clock()
    add(db, camera(1, **{"last_seen": now, "enrolled_at": now, **more}))
    servers.stay_up(seconds=after_s - 61)
    servers.run(seconds=60)
    assert events(db) == []
    servers.run(seconds=62)
    assert events(db) == [silent("cam-1")]


def test_a_device_let_in_again_is_given_an_interval_to_report(
    db: Database, servers: Servers, clock: FakeClock
) -> None:
    add(db, camera(1, last_seen=clock() - timedelta(days=30), enrolled_at=clock()))
    servers.run(seconds=SILENT_S - 1)
    assert events(db) == []
    servers.run(seconds=62)
    assert events(db) == [silent("cam-1")]


@pytest.mark.parametrize("state", ["pending", "revoked", "decommissioned"])
def test_a_device_out_of_service_is_never_told_of(
    db: Database, servers: Servers, clock: FakeClock, state: str
) -> None:
    add(db, camera(1, state=state), camera(2, state=state, last_seen=None))
    servers.run(minutes=6)
    hear(db, "cam-1", at=clock())
    servers.run(minutes=2)
    assert events(db) == []


@pytest.mark.parametrize("end", [service.revoke, service.decommission])
def test_one_that_is_taken_out_while_silent_is_not_heard_again(
    db: Database, servers: Servers, clock: FakeClock, end: Any
) -> None:
    add(db, camera(1, last_seen=clock()))
    servers.run(minutes=10)
    with db.write() as session:
        assert end(session, name="cam-1", actor="test", now=clock()).silent_since is None
    hear(db, "cam-1", at=clock())
    servers.run(minutes=10)
    assert events(db) == [silent("cam-1")]


def test_of_many_there_is_one_event_a_chunk_with_the_first_names(
    db: Database, servers: Servers, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silence_sweep, "CHUNK", 20)
    names = sorted(f"cam-{n}" for n in range(1, 46))
    add(db, *(camera(n, last_seen=clock()) for n in range(1, 46)))
    servers.run(minutes=10)
    hear(db, *names, at=clock())
    servers.run(minutes=2)
    told = events(db)
    assert [(verb, where, count) for verb, where, count, _ in told] == [
        (verb, "fleet", count)
        for verb in ("device.silent", "device.heard")
        for count in (20, 20, 5)
    ]
    assert all(len(named) == min(count, 10) and named == sorted(named) for *_, count, named in told)
    assert {n for *_, named in told for n in named} <= set(names)


def test_each_of_many_has_a_line_of_its_own_and_all_are_written_at_once(
    db: Database, servers: Servers, clock: FakeClock
) -> None:
    names = sorted(f"cam-{n}" for n in range(1, 46))
    add(db, *(camera(n, last_seen=clock()) for n in range(1, 46)))
    servers.run(seconds=SILENT_S - 1)
    with statements(db) as sent:
        servers.run(seconds=62)
    assert sum(s.startswith("INSERT INTO audit_events") for s in sent) == 1
    hear(db, *names, at=clock())
    servers.run(minutes=2)
    e = AuditEventRow
    for verb in ("device.fell_silent", "device.came_back"):
        with db.read() as session:
            query = select(e.object, e.after).where(e.verb == verb).order_by(e.id)
            lines = [tuple(row) for row in session.execute(query)]
        assert lines == [(f"device/{name}", {"devices": 45}) for name in names]


def test_several_processes_tell_it_once(db: Database, servers: Servers, clock: FakeClock) -> None:
    servers.start(processes=4)
    add(db, *(camera(n, last_seen=clock()) for n in range(1, 4)))
    servers.run(minutes=10)
    assert events(db) == [silent("cam-1", "cam-2", "cam-3")]


def test_of_processes_that_look_at_one_moment_one_tells_it(
    db: Database, servers: Servers, clock: FakeClock
) -> None:
    add(db, *(camera(n, last_seen=clock()) for n in range(1, 40)))
    processes = [SilenceSweep(db, SETTINGS, clock) for _ in range(6)]
    servers.run(seconds=SILENT_S - 10)
    clock.advance(seconds=70)
    together = threading.Barrier(len(processes))

    def look(process: SilenceSweep) -> None:
        together.wait()
        process.look()

    threads = [threading.Thread(target=look, args=[process]) for process in processes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [(verb, count) for verb, _, count, _ in events(db)] == [("device.silent", 39)]


def test_after_a_stop_of_an_hour_nobody_is_silent_who_reports_within_an_interval(
    db: Database, servers: Servers, clock: FakeClock
) -> None:
    add(db, camera(1, last_seen=clock()), camera(2, last_seen=clock()))
    clock.advance(hours=1)
    servers.start(processes=2)
    servers.run(seconds=55)
    hear(db, "cam-1", at=clock())
    servers.run(seconds=74)
    assert events(db) == []
    servers.run(seconds=61)
    assert events(db) == [silent("cam-2")]


def test_a_restored_database_gives_the_fleet_the_same_grace_without_a_restart(
    db: Database, servers: Servers, clock: FakeClock
) -> None:
    add(db, camera(1, last_seen=clock()))
    with db.read() as session:
        backup = session.execute(text("SELECT * FROM silence_watch")).one()._asdict()
    clock.advance(hours=5)
    sets = ", ".join(f"{name} = :{name}" for name in backup)
    with db.write() as session:
        session.execute(text(f"UPDATE silence_watch SET {sets}"), backup)
    servers.run(seconds=120)
    assert events(db) == []
    servers.run(seconds=120)
    assert events(db) == [silent("cam-1")]


def test_nightly_restarts_do_not_hide_devices_that_report_once_a_day(
    db: Database, servers: Servers, clock: FakeClock
) -> None:
    add(db, camera(1, check_in_s=86_400, last_seen=clock()))
    for _ in range(3):
        assert events(db) == []
        servers.stay_up(hours=23, minutes=50)
        clock.advance(minutes=10)
        servers.start()
        servers.run(minutes=5)
    assert events(db) == [silent("cam-1")]


def test_the_first_start_of_all_excuses_nobody_for_years() -> None:
    first = Watch(*[datetime(1970, 1, 1, tzinfo=START.tzinfo)] * 3).at(START)
    month, stop = timedelta(days=30), timedelta(minutes=10)
    later = replace(first, looked_at=START + month).at(START + month + stop)
    assert later.away_until - later.away_from == stop


def test_a_restart_of_a_moment_makes_no_device_with_a_short_interval_silent(
    db: Database, clock: FakeClock
) -> None:
    short = Servers(db, clock, Settings(check_in_interval_s=10))
    add(db, camera(1, check_in_s=10, last_seen=START + timedelta(minutes=10)))
    short.run(minutes=10)
    clock.advance(seconds=100)
    short.start()
    clock.advance(seconds=5)
    hear(db, "cam-1", at=clock())
    short.run(seconds=30)
    assert events(db) == []


H = timedelta(hours=1)


@pytest.mark.parametrize(
    ("stops", "told_h", "excused"),
    [
        # stops: from and to, in hours from the start; asked an hour and a half after the last
        ([(1, 2)], 1, False),
        ([(1, 5)], 2, True),
        ([(1, 5)], 4, True),
        ([(1, 5)], 5, False),  # it has reported since, or missed one of its three
        ([(1, 9), (10, 10.2)], 8, True),  # the grace of the long stop goes on
        ([(1, 5), (10, 10.2)], 4, False),
    ],
)
def test_a_stop_excuses_those_whose_interval_it_covers(
    stops: list[tuple[float, float]], told_h: int, excused: bool
) -> None:
    watch = Watch(START, START, START)
    for began, ended in stops:
        watch = replace(watch, looked_at=START + began * H).at(START + ended * H)
    now = START + (stops[-1][1] + 1.5) * H
    assert watch.excuses(told_h * H, late=timedelta(0), now=now) == excused


def test_a_clock_that_was_set_back_stops_nothing(db: Database, clock: FakeClock) -> None:
    servers = Servers(db, clock)
    clock.advance(days=30)
    servers.run(minutes=5)
    clock.advance(days=-30)
    add(db, camera(1, last_seen=clock()))
    servers.start()
    servers.run(minutes=10)
    assert events(db) == [silent("cam-1")]


@only_sqlite
def test_a_minute_in_which_nothing_happened_writes_its_look_and_no_more(
    db: Database, servers: Servers, clock: FakeClock
) -> None:
    add(db, camera(1, last_seen=clock() + timedelta(days=1)), camera(2, check_in_s=900))
    hear(db, "cam-2", at=clock() + timedelta(days=1))
    clock.advance(seconds=60)
    with statements(db) as sent:
        SilenceSweep(db, SETTINGS, clock).look()
    assert [s.split()[:2] for s in sent if not s.startswith(("SELECT", "BEGIN"))] == [
        ["UPDATE", "silence_watch"]
    ]


def test_the_sweep_finds_devices_by_its_own_indexes(db: Database) -> None:
    made, gone = [], {"silent_since": START}
    for n in range(600):
        seen = START + timedelta(milliseconds=n)
        made.append(camera(n, last_seen=seen, **(gone if n % 50 == 0 else {})))
    add(db, *made)
    rule = silence(SETTINGS, START)
    with db.write() as session:
        session.execute(text("ANALYZE"))
    with db.read() as session:
        asked: list[Select[Any]] = [
            silence_sweep._next_interval(silence_sweep._AWAITED, 0),
            silence_sweep._next_interval(silence_sweep._MISSED, 0),
            silence_sweep._found(silence_sweep._heard(session, rule, 60)).limit(1),
        ]
        for told in (60, None):
            silent = silence_sweep._silent(session, rule, told)
            asked += [silence_sweep._found(rules).limit(1) for rules in silent]
        how = "EXPLAIN QUERY PLAN" if db.is_sqlite else "EXPLAIN"
        for query in asked:
            plain = query.compile(db.reader, compile_kwargs={"literal_binds": True})
            plan = str(session.connection().exec_driver_sql(f"{how} {plain}").all())
            assert "ix_devices_awaited" in plan or "ix_devices_missed" in plan, plan


def test_a_fleet_with_a_real_server_is_told_of(
    fleet: Fleet, context: Context, clock: FakeClock
) -> None:
    camera_1 = fleet.device("cam-1")
    servers = Servers(context.db, clock, context.settings)
    servers.stay_up(seconds=3 * context.settings.check_in_interval_s)
    servers.run(seconds=140)
    assert events(context.db) == [silent("cam-1")]
    since = fleet.operator.get("/api/v1/devices/cam-1").json()["silent_since"]
    (listed,) = fleet.operator.get("/api/v1/devices").json()["items"]
    assert since == listed["silent_since"] is not None
    assert clock() - datetime.fromisoformat(since) <= timedelta(seconds=140)
    assert camera_1.check_in().status_code == 200
    servers.run(minutes=2)
    assert events(context.db) == [silent("cam-1"), heard("cam-1")]
    assert fleet.operator.get("/api/v1/devices/cam-1").json()["silent_since"] is None
