"""What a device's report means for a rollout: each sign, and what it makes of each outcome."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import select

from pilotwave_protocol.messages.check_in import DeviceEvent, Installed, ModelReport
from pilotwave_protocol.names import AGENT_MODEL
from pilotwave_protocol.states import ModelState
from pilotwave_server.rollouts.operate import steer
from pilotwave_server.rollouts.outcomes import Report, Stand, becomes, sign_of
from pilotwave_server.rollouts.tables import RolloutDeviceRow
from tests.server.rollouts.worlds_db import World

S = ModelState
NOW = datetime(2026, 2, 1, 12, tzinfo=timezone.utc)
OLD, NEW, THIRD = "1.0.0", "1.1.0", "1.2.0"


def version(name: str | None) -> Installed | None:
    return None if name is None else Installed(name, "ab" * 32, "onnx-fp32", 1)


def report(
    state: S, current: str | None, candidate: str | None = None, **given: Any
) -> ModelReport:
    return ModelReport("detector", state, version(current), None, version(candidate), **given)


def rolled_back(reason: str) -> DeviceEvent:
    return DeviceEvent(1, NOW, "rolled_back", "detector", NEW, reason)


SIGNS = [
    (report(S.PROBATION, NEW), (), Stand.ON_TRIAL),
    (report(S.HEALTHY, NEW), (), Stand.WELL),
    # it is well and on its way to another
    (report(S.FETCHING, NEW, THIRD), (), Stand.WELL),
    (report(S.FETCHING, OLD, NEW), (), Stand.COMING),
    (report(S.TESTING, OLD, NEW), (), Stand.COMING),
    (report(S.FAILED, OLD, NEW, reason="selftest_mismatch"), (), Stand.FAILED),
    (report(S.FAILED, OLD, THIRD), (), Stand.ABSENT),
    # it failed there, and there was nothing to go back to
    (report(S.FAILED, NEW, NEW), (), Stand.FAILED),
    (report(S.ROLLED_BACK, OLD, NEW, reason="probe_failed"), (), Stand.WENT_BACK),
    # all of it between two reports
    (report(S.HEALTHY, OLD), (rolled_back("probe_failed"),), Stand.WENT_BACK),
    # somebody else took it from there
    (report(S.HEALTHY, OLD), (rolled_back("operator_rollback"),), Stand.ABSENT),
    (report(S.ROLLED_BACK, OLD, NEW, reason="yanked"), (), Stand.ABSENT),
    (report(S.HEALTHY, OLD), (), Stand.ABSENT),
    (report(S.IDLE, None), (), Stand.ABSENT),
]


@pytest.mark.parametrize(("told", "events", "stand"), SIGNS)
def test_sign(told: ModelReport, events: tuple[DeviceEvent, ...], stand: Stand) -> None:
    assert sign_of(told, events, NEW, now=NOW).stand is stand


@pytest.mark.parametrize(
    ("agent", "version", "stand"),
    [
        ("0.2.0+3f2a9c1e", "0.2.0", Stand.WELL),
        ("0.2.0+3f2a9c1e", "0.2.0+3f2a9c1e", Stand.WELL),
        # it says that it is healthy, and an older agent says so
        ("0.1.0+3f2a9c1e", "0.2.0", Stand.ON_TRIAL),
        ("0.2.0+aaaaaaaa", "0.2.0+3f2a9c1e", Stand.ON_TRIAL),
        ("unknown+3f2a9c1e", "0.2.0", Stand.ON_TRIAL),
        ("", "0.2.0", Stand.ON_TRIAL),
    ],
)
def test_a_device_is_well_on_an_agent_once_it_reports_as_that_agent(
    agent: str, version: str, stand: Stand
) -> None:
    told = replace(report(S.HEALTHY, version), model=AGENT_MODEL)
    assert sign_of(told, (), version, now=NOW, agent=agent).stand is stand
    # another model's health has nothing to do with it
    other = report(S.HEALTHY, version)
    assert sign_of(other, (), version, now=NOW, agent=agent).stand is Stand.WELL


def test_a_clock_that_is_ahead_dates_nothing_later_than_the_report() -> None:
    ahead = DeviceEvent(1, NOW + timedelta(days=9), "switched", "detector", NEW)
    assert sign_of(report(S.HEALTHY, NEW), (ahead,), NEW, now=NOW).switched_at == NOW


@dataclass
class Row:
    outcome: str
    changed_at: datetime = NOW
    switched_at: datetime | None = None
    left_at: datetime | None = None
    counts_from: int = 0


def after(outcome: str | None, stand: Stand, *, seq: int = 9, back: bool = False) -> Any:
    row = None if outcome is None else Row(outcome, counts_from=5)
    change = becomes(row, Report(stand), directive_seq=seq, sending_back=back, now=NOW)
    return None if change is None else change.get("outcome", sorted(change))


@pytest.mark.parametrize(
    ("outcome", "stand", "expected"),
    [
        (None, Stand.ON_TRIAL, "switched"),
        ("leased", Stand.ON_TRIAL, "switched"),
        ("expired", Stand.ON_TRIAL, "switched"),
        ("failed", Stand.ON_TRIAL, "switched"),  # an operator asked it to try again
        ("switched", Stand.ON_TRIAL, None),
        ("healthy", Stand.ON_TRIAL, None),
        ("silent", Stand.ON_TRIAL, None),
        ("switched", Stand.WELL, "healthy"),
        ("silent", Stand.WELL, "healthy"),
        ("healthy", Stand.WELL, None),
        ("leased", Stand.FAILED, "failed"),
        ("failed", Stand.FAILED, None),
        ("healthy", Stand.WENT_BACK, "rolled_back"),
        ("rolled_back", Stand.WENT_BACK, None),
        ("leased", Stand.COMING, ["changed_at"]),
        (None, Stand.COMING, None),
        (None, Stand.ABSENT, None),
        ("leased", Stand.ABSENT, None),
        ("switched", Stand.ABSENT, "expired"),
        ("healthy", Stand.ABSENT, ["left_at"]),
        ("failed", Stand.ABSENT, None),
    ],
)
def test_what_becomes_of_an_outcome(outcome: str | None, stand: Stand, expected: Any) -> None:
    assert after(outcome, stand) == expected


def test_being_sent_back_is_no_failure() -> None:
    assert after("switched", Stand.ABSENT, back=True) == ["left_at"]


def test_failure_from_before_a_retry_does_not_count() -> None:
    assert after("expired", Stand.FAILED, seq=4) is None
    assert after("expired", Stand.WENT_BACK, seq=4) is None
    assert after("expired", Stand.FAILED, seq=5) == "failed"


def test_retry_counts_from_the_directive_that_tells_of_it(world: World) -> None:
    name = world.create()
    world.do(steer.next_wave, name)
    d = RolloutDeviceRow
    with world.db.write() as session:
        session.add(
            d(rollout_id=int(name[1:]), device_id=1, wave=0, outcome="failed",
              changed_at=world.now(), number=0)
        )  # fmt: skip
    with world.db.read() as session:
        before = world.snapshot(session).revision
    world.do(steer.retry_failed, name)
    with world.db.write() as session:
        row = session.scalars(select(d)).one()
        assert (row.outcome, row.counts_from > before) == ("expired", True)
