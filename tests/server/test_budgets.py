"""What a flood costs: of refusals, by address; of one device's reports; of wishes to join."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select

from pilotwave_protocol.messages.check_in import DeviceEvent
from pilotwave_server.app import create_app
from pilotwave_server.buckets import Buckets
from pilotwave_server.db import Database
from pilotwave_server.device_api.budgets import BURST
from pilotwave_server.devices import enrolment
from pilotwave_server.devices.report_tables import DeviceEventRow, DeviceHistoryRow
from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.pacing import MOST_WAITING, Pacing, TooManyRefusals, address_of
from pilotwave_server.settings import Settings
from pilotwave_server.telemetry.retention import BATCH, clean
from tests.conftest import START, FakeClock
from tests.server.device_api.peer import SimulatedDevice, code_of
from tests.server.fleet_fixtures import Fleet, fleet, only_sqlite, published
from tests.servers import RunningServer, run_in_thread

__all__ = ["fleet", "published"]


def test_a_bucket_gives_so_much_at_once_and_then_so_much_per_second() -> None:
    buckets: Buckets[str] = Buckets(burst=10, per_second=2)
    assert [buckets.take("a", 0.0) for _ in range(10)] == [0.0] * 10
    assert buckets.take("a", 0.0) == pytest.approx(0.5)
    assert buckets.take("b", 0.0) == 0.0
    assert buckets.take("a", 0.5) == 0.0
    assert buckets.left("a", 2.5) == pytest.approx(4)
    assert buckets.left("a", 1e9) == 10
    buckets.refund("a", 3)
    assert buckets.left("a", 2.5) == pytest.approx(7)
    buckets.charge("a", 2.5, 20)
    assert buckets.left("a", 2.5) == pytest.approx(-13)


def test_buckets_of_any_number_of_names_stay_bounded() -> None:
    buckets: Buckets[int] = Buckets(burst=10, per_second=1, most=100)
    for name in range(10_000):
        buckets.charge(name, 0.0, 20 if name == 7 else 1)
    assert len(buckets._full_at) <= 100
    assert buckets.left(7, 0.0) == -10  # who owes most is remembered


@pytest.mark.parametrize(
    ("host", "counts_as"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),  # a host has all of a /64
        ("2001:db8:1:2::1%eth0", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("not:an:address", "not:an:address"),
    ],
)
def test_an_address_is_what_one_host_cannot_change(host: str, counts_as: str) -> None:
    assert address_of({"client": (host, 1)}) == counts_as
    assert address_of({"client": None}) == "-"


def test_an_address_that_was_refused_often_waits_and_others_do_not() -> None:
    now = [0.0]
    pacing = Pacing(clock=lambda: now[0])
    bad: dict[str, Any] = {"client": ("192.0.2.1", 1)}
    good: dict[str, Any] = {"client": ("192.0.2.2", 1)}

    async def waited(scope: dict[str, Any]) -> float:
        began = time.monotonic()
        await asyncio.wait_for(pacing.wait(scope), 10)
        return time.monotonic() - began

    assert asyncio.run(waited(bad)) < 0.1
    for _ in range(103):
        pacing.refused(bad)
    assert 0.1 < asyncio.run(waited(bad)) < 2
    assert asyncio.run(waited(good)) < 0.1
    now[0] += 10
    assert asyncio.run(waited(bad)) < 0.1


def test_more_waiting_requests_of_one_address_than_the_most_are_refused() -> None:
    pacing = Pacing()
    bad: dict[str, Any] = {"client": ("192.0.2.1", 1)}
    pacing.refused(bad, size=100 << 20)

    async def all_at_once() -> list[object]:
        waiting = (pacing.wait(bad) for _ in range(MOST_WAITING + 5))
        return await asyncio.gather(*waiting, return_exceptions=True)

    refused = [r for r in asyncio.run(all_at_once()) if isinstance(r, TooManyRefusals)]
    assert len(refused) == 5
    assert (refused[0].status, refused[0].code) == (429, "too_many_refusals")
    assert refused[0].headers["Retry-After"] == "10"


# --- one device's reports


def events(first: int, count: int) -> tuple[DeviceEvent, ...]:
    return tuple(
        DeviceEvent(n, START, "healthy", "detector", "1.0.0") for n in range(first, first + count)
    )


@only_sqlite
def test_a_flood_of_one_device_is_refused_with_a_time_and_another_is_not(fleet: Fleet) -> None:
    flood, other = fleet.device("cam-1"), fleet.device("cam-2")
    for _ in range(BURST - 1):
        assert flood.check_in().status_code == 200
    answer = flood.check_in()
    assert code_of(answer) == (429, "too_many_check_ins")
    assert 1 <= int(answer.headers["Retry-After"]) <= 5
    assert other.check_in().status_code == 200
    assert flood.poll().status_code in (200, 304)  # its token is as good as before
    time.sleep(int(answer.headers["Retry-After"]))
    assert flood.check_in().status_code == 200


@pytest.fixture
def tight(settings: Settings, clock: FakeClock) -> Iterator[RunningServer]:
    changed = settings.model_copy(update={"events_per_hour": 100})
    with run_in_thread(create_app(changed, clock=clock)) as running:
        yield running


@pytest.fixture
def server(request: pytest.FixtureRequest, app: Any) -> Iterator[RunningServer]:
    """The server of `tight` where a test asks for it, else the usual one."""
    if "tight" in request.fixturenames:
        yield request.getfixturevalue("tight")
        return
    with run_in_thread(app) as running:
        yield running


def test_events_over_the_budget_wait_on_the_device_and_the_report_is_taken(
    tight: RunningServer, fleet: Fleet, db: Database
) -> None:
    """39,936 events of one device were stored in 20 s."""
    device = fleet.device("cam-1")
    first = device.check_in(events=events(1, 64))
    assert first.json()["acked_event"] == 64
    shortened = device.check_in(events=tuple(reversed(events(65, 64))))
    assert shortened.json()["acked_event"] == 100
    empty = device.check_in(events=events(101, 64))
    assert (empty.status_code, empty.json()["acked_event"]) == (200, 100)
    assert empty.json()["token"]
    with db.read() as session:
        assert session.scalar(select(func.count()).select_from(DeviceEventRow)) == 100
        assert session.scalar(select(func.max(DeviceEventRow.number))) == 100


@only_sqlite
def test_a_report_that_a_stranger_sends_again_costs_the_device_nothing(fleet: Fleet) -> None:
    device = fleet.device("cam-1")
    captured = device.check_in_envelope()
    assert device.post("/device/v1/check-in", captured).status_code == 200
    for _ in range(BURST + 20):
        assert device.post("/device/v1/check-in", captured).status_code == 409
    assert device.check_in().status_code == 200


# --- wishes to join


def wishes(fleet: Fleet, db: Database, count: int, *, address: str) -> None:
    with db.write() as session:
        taken = session.scalar(select(func.count()).select_from(DeviceRow)) or 0
        for n in range(taken, taken + count):
            row = DeviceRow(
                name=f"bad-{n}",
                public_key=f"{n:064x}",
                state="pending",
                revision=1,
                facts={},
                created_at=START,
                asked_from=address,
            )
            session.add(row)


def test_strangers_of_one_address_do_not_close_enrolment(fleet: Fleet, db: Database) -> None:
    """1,000 anonymous wishes closed it for everybody."""
    wishes(fleet, db, enrolment.MAX_PENDING_OF_ONE, address="127.0.0.1")
    answer = SimulatedDevice("cam-1", fleet.client).enrol()
    assert code_of(answer) == (503, "too_many_pending")
    with_code = SimulatedDevice("cam-2", fleet.client).enrol(fleet.code())
    assert with_code.status_code == 201


def test_where_too_many_wait_the_oldest_of_the_busiest_address_goes(
    fleet: Fleet, db: Database
) -> None:
    for n in range(4):
        wishes(fleet, db, enrolment.MAX_PENDING // 4, address=f"192.0.2.{n}")
    answer = SimulatedDevice("cam-1", fleet.client).enrol()
    assert (answer.status_code, answer.json()["state"]) == (201, "pending")
    with db.read() as session:
        names = set(session.scalars(select(DeviceRow.name)))
    assert "bad-0" not in names
    assert len(names) == enrolment.MAX_PENDING
    accepted = fleet.operator.post("/api/v1/devices/cam-1/accept")
    assert accepted.status_code == 200
    for n in range(3):  # who was accepted is nobody's to push out
        assert SimulatedDevice(f"cam-{n + 2}", fleet.client).enrol().status_code == 201
    shown = fleet.operator.get("/api/v1/devices/cam-1").json()
    assert shown["state"] == "enrolled"


def test_a_wish_that_nobody_heard_ends_after_a_month(
    fleet: Fleet, db: Database, clock: FakeClock
) -> None:
    wishes(fleet, db, 3, address="192.0.2.1")
    clock.advance(days=31)
    assert SimulatedDevice("cam-1", fleet.client).enrol().status_code == 201
    with db.read() as session:
        assert list(session.scalars(select(DeviceRow.name))) == ["cam-1"]


# --- how long events are kept


def stored(db: Database, kind: Any) -> list[int]:
    with db.read() as session:
        return list(session.scalars(select(kind.id).order_by(kind.id)))


def test_old_events_go_and_each_device_keeps_its_newest(fleet: Fleet, db: Database) -> None:
    many, few = fleet.device("cam-1"), fleet.device("cam-2")
    with db.write() as session:
        ids = dict(session.execute(select(DeviceRow.name, DeviceRow.id)).tuples().all())
        for name, count in ((many.name, BATCH * 2 + 100), (few.name, 20)):
            for n in range(count):
                old = timedelta(days=100) if n < 10 and name == many.name else timedelta()
                session.add(
                    DeviceEventRow(
                        device_id=ids[name],
                        generation=1,
                        number=n + 1,
                        at=START,
                        received_at=START - old,
                        kind="healthy",
                    )
                )
                session.add(
                    DeviceHistoryRow(
                        device_id=ids[name], model="m", version="1", became="healthy", at=START
                    )
                )
            session.flush()
    before = stored(db, DeviceHistoryRow)
    gone = clean(db, now=START, days=90, per_device=50)
    with db.read() as session:
        kept = session.execute(
            select(DeviceEventRow.device_id, func.count(), func.max(DeviceEventRow.number))
            .group_by(DeviceEventRow.device_id)
            .order_by(DeviceEventRow.device_id)
        ).all()
    assert [tuple(row) for row in kept] == [
        (ids["cam-1"], 50, BATCH * 2 + 100),
        (ids["cam-2"], 20, 20),
    ]
    assert len(stored(db, DeviceHistoryRow)) == 50 + 20
    assert stored(db, DeviceHistoryRow)[-70:-20] == before[-70:-20]
    assert gone > 2 * BATCH
    assert clean(db, now=START, days=90, per_device=50) == 0
