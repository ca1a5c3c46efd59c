"""Steps of rollouts: only those in the table, each at most once, each explained."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from pilotwave_server.audit.tables import AuditEventRow
from pilotwave_server.db import FleetRow
from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.errors import ServerError
from pilotwave_server.groups.service import GroupInUse, delete_group
from pilotwave_server.registry.service import deny
from pilotwave_server.rollouts import leases
from pilotwave_server.rollouts.assignments import baselines
from pilotwave_server.rollouts.assignments.offerable import VersionNotOffered
from pilotwave_server.rollouts.operate import steer
from pilotwave_server.rollouts.operate.create import (
    BadTimes,
    CanaryGroupUnknown,
    NobodyThere,
    NoVariantFits,
    RolloutInTheWay,
)
from pilotwave_server.rollouts.operate.steer import NothingToRetry, OwnRollout
from pilotwave_server.rollouts.policies.policy import Canary, Wave
from pilotwave_server.rollouts.states import TRANSITIONS, RolloutState
from pilotwave_server.rollouts.tables import DecisionRow, RolloutDeviceRow, RolloutRow
from pilotwave_server.rollouts.transitions import (
    NoNextWave,
    RolloutMoved,
    RolloutUnknown,
    WrongRolloutState,
    get_rollout,
    transition,
)
from tests.server.rollouts.worlds_db import AUTHOR, OTHER, World, policy

S = RolloutState
ALL = Wave("all", percent=100)


def baseline(world: World, version: str) -> None:
    with world.db.write() as session:
        told = {"group": "cams", "model": "detector", "version": version}
        snapshot = world.snapshot(session)
        baselines.set_baseline(session, snapshot, **told, actor=AUTHOR, now=world.now())


def outcome(world: World, name: str, device: str, word: str) -> None:
    """What a check-in does with what a device says came of the rollout."""
    with world.db.write() as session:
        id = session.scalars(select(DeviceRow.id).where(DeviceRow.name == device)).one()
        row = RolloutDeviceRow(
            rollout_id=int(name[1:]),
            device_id=id,
            wave=0,
            outcome=word,
            changed_at=world.now(),
            number=1,
        )
        session.merge(row)
        session.flush()
        leases.revise(session, [id])


def put_into(world: World, name: str, state: RolloutState) -> None:
    with world.db.write() as session:
        row = update(RolloutRow).where(RolloutRow.id == int(name[1:]))
        session.execute(row.values(state=str(state)))


def step(world: World, name: str, to: RolloutState | None, **changes: Any) -> None:
    with world.db.write() as session:
        rollout = get_rollout(session, name)
        told = {"actor": AUTHOR, "now": world.now(), "sentence": "because"}
        transition(session, rollout, to, action="try", **told, **changes)


def test_every_pair_of_states_is_as_the_table_says(world: World) -> None:
    name = world.create()
    for before, after in itertools.product(S, S):
        put_into(world, name, before)
        if after in TRANSITIONS[before]:
            step(world, name, after)
            assert world.row(name).state == after
        else:
            with pytest.raises(WrongRolloutState):
                step(world, name, after)
            assert world.row(name).state == before


def test_of_two_who_decide_from_one_moment_one_goes_home(world: World) -> None:
    name = world.create()
    with world.db.read() as session:
        seen = get_rollout(session, name)
        session.expunge(seen)
    step(world, name, None, wave=0)
    told = {"actor": "server", "now": world.now(), "sentence": "late"}
    with pytest.raises(RolloutMoved), world.db.write() as session:
        transition(session, seen, S.PAUSED, action="pause", **told)
    assert world.row(name).state == S.RUNNING
    with world.db.read() as session:
        assert len(session.scalars(select(DecisionRow)).all()) == 3  # create, start, try


def test_each_step_is_written_down_and_told_to_the_audit_log(world: World) -> None:
    name = world.create()
    with world.db.write() as session:
        rollout = get_rollout(session, name)
        verdict = {"verdict": "FAIL", "numbers": {"failed": 4, "reported": 9}}
        told = {"actor": "server", "now": world.now(), "sentence": "4 of 9 failed", **verdict}
        transition(session, rollout, S.PAUSED, action="pause", **told)
    with world.db.read() as session:
        decision = session.scalars(select(DecisionRow).order_by(DecisionRow.id.desc())).first()
        event = session.scalars(select(AuditEventRow).order_by(AuditEventRow.id.desc())).first()
    assert decision is not None
    assert event is not None
    assert (decision.actor, decision.action, decision.verdict) == ("server", "pause", "FAIL")
    assert (decision.sentence, decision.numbers) == ("4 of 9 failed", verdict["numbers"])
    assert (event.verb, event.object) == ("rollout.pause", f"rollout/{name}")
    assert event.after is not None
    assert (event.after["state"], event.after["sentence"]) == ("paused", "4 of 9 failed")
    assert (world.row(name).reason, world.row(name).paused_by) == ("4 of 9 failed", "server")


def test_steps_that_change_no_offer_leave_the_fleets_revision_alone(world: World) -> None:
    def revision() -> int:
        with world.db.read() as session:
            return session.get_one(FleetRow, 1).fleet_revision

    name = world.create(start=False)
    before = revision()
    step(world, name, S.SCHEDULED)
    assert revision() == before
    step(world, name, S.RUNNING)
    step(world, name, None, wave=0)
    assert (revision(), world.row(name).revision) == (before + 2, before + 2)


def test_waves_open_one_after_the_other_and_take_more_and_more(world: World) -> None:
    baseline(world, "1.0.0")
    name = world.create(
        policy(
            Wave("named", canary=Canary(devices=("cam-3", "elsewhere"))),
            Wave("line", canary=Canary(selector="line=a")),
            Wave("seven", count=7),
            ALL,
        )
    )
    assert world.told("1.1.0") == set()
    world.do(steer.next_wave, name)
    assert world.told("1.1.0") == {3}
    world.do(steer.next_wave, name)
    assert world.told("1.1.0") == {1, 3, 5, 7, 9}
    before = world.told("1.1.0")
    world.do(steer.next_wave, name)
    assert before < world.told("1.1.0")
    assert len(world.told("1.1.0")) >= 7
    world.do(steer.next_wave, name)
    assert world.told("1.1.0") == set(range(10))
    with pytest.raises(NoNextWave, match="has 4 of its 4 waves open"):
        world.do(steer.next_wave, name)


def test_device_that_joins_late_finds_its_wave(world: World) -> None:
    name = world.create(
        policy(Wave("line", canary=Canary(selector="line=c")), ALL), allow_empty=True
    )
    world.do(steer.next_wave, name)
    assert world.told("1.1.0") == set()
    with world.db.write() as session:
        device = session.scalars(select(DeviceRow).where(DeviceRow.name == "cam-4")).one()
        device.labels = {"line": "c"}
    assert world.told("1.1.0") == {4}


def test_pause_keeps_the_version_where_it_is_and_offers_it_nowhere_else(world: World) -> None:
    baseline(world, "1.0.0")
    name = world.create(policy(ALL))
    world.do(steer.next_wave, name)
    for device, word in [("cam-1", "switched"), ("cam-2", "healthy"), ("cam-3", "failed")]:
        outcome(world, name, device, word)
    world.do(steer.pause, name)
    assert world.told("1.1.0") == {1, 2}
    assert world.told("1.0.0") == {0, *range(3, 10)}
    world.do(steer.resume, name)
    assert world.told("1.1.0") == set(range(10))


def test_abort_leaves_what_is_installed_until_the_group_is_assigned_something(
    world: World,
) -> None:
    baseline(world, "1.0.0")
    name = world.create(policy(ALL))
    world.do(steer.next_wave, name)
    for device, word in [("cam-1", "switched"), ("cam-2", "healthy"), ("cam-3", "leased")]:
        outcome(world, name, device, word)
    world.do(steer.abort, name)
    assert world.told("1.1.0") == {1, 2}
    baseline(world, "1.0.0")
    assert world.told("1.0.0") == set(range(10))


def test_next_rollout_goes_before_what_an_aborted_one_left(world: World) -> None:
    baseline(world, "1.0.0")
    first = world.create(policy(ALL))
    world.do(steer.next_wave, first)
    outcome(world, first, "cam-1", "healthy")
    world.do(steer.abort, first)
    second = world.create(
        policy(Wave("one", canary=Canary(devices=("cam-1",))), ALL), version="1.2.0"
    )
    world.do(steer.next_wave, second)
    assert world.runs("cam-1") == "1.2.0"
    world.do(steer.roll_back, second)
    assert world.runs("cam-1") == "1.1.0"


def test_rollback_sends_all_back_and_keeps_the_version_out(world: World) -> None:
    baseline(world, "1.0.0")
    name = world.create(policy(ALL))
    world.do(steer.next_wave, name)
    outcome(world, name, "cam-1", "healthy")
    world.do(steer.roll_back, name, reason="it sees ghosts")
    assert world.told("1.0.0") == set(range(10))
    assert world.row(name).reason == f"rolled back by {AUTHOR}: it sees ghosts"
    with pytest.raises(VersionNotOffered, match="sees ghosts"):
        world.create()


def test_second_person_approves_and_the_author_cannot(world: World) -> None:
    name = world.create(policy(ALL, approval=True))
    assert world.row(name).state == S.AWAITING_APPROVAL
    with pytest.raises(OwnRollout, match="somebody else"):
        world.do(steer.approve, name, actor=AUTHOR)
    with pytest.raises(WrongRolloutState, match="waits for approval"):
        world.do(steer.start, name, actor=OTHER)
    world.do(steer.approve, name, actor=OTHER)
    row = world.row(name)
    assert (row.state, row.approved_by) == (S.RUNNING, OTHER)
    with pytest.raises(WrongRolloutState, match="cannot be approved"):
        world.do(steer.approve, name, actor=OTHER)


def test_approved_rollout_waits_for_its_time(world: World) -> None:
    due = world.now() + timedelta(hours=2)
    name = world.create(policy(ALL, approval=True), start_at=due)
    world.do(steer.approve, name, actor=OTHER)
    assert world.row(name).state == S.SCHEDULED
    world.do(steer.start, name)
    assert world.row(name).state == S.RUNNING


def test_version_that_was_denied_meanwhile_is_not_started(world: World) -> None:
    name = world.create(start=False)
    with world.db.write() as session:
        told = {"model": "detector", "version": "1.1.0", "reason": "burns"}
        deny(session, **told, actor=AUTHOR, now=world.now())
    with pytest.raises(VersionNotOffered, match="burns"):
        world.do(steer.start, name)


def test_retry_needs_a_device_that_failed(world: World) -> None:
    name = world.create(policy(ALL))
    with pytest.raises(NothingToRetry):
        world.do(steer.retry_failed, name)
    outcome(world, name, "cam-1", "rolled_back")
    assert world.do(steer.retry_failed, name)[1] == 1
    assert world.row(name).attempt == 1
    world.do(steer.abort, name)
    with pytest.raises(WrongRolloutState):
        world.do(steer.retry_failed, name)


def canary(**how: Any) -> Any:
    return policy(Wave("canary", canary=Canary(**how)), ALL)


Refused = tuple[str, type[ServerError], str, Callable[[World], str]]
REFUSED: list[Refused] = [
    # the operator's typo in a label: nothing would ever happen, so it is said at once
    (
        "selector that matches nothing",
        NobodyThere,
        r"its selector `line=z` matches none",
        lambda w: (w.group("none", "line=z"), w.create(group="none"))[1],
    ),
    (
        "empty list",
        NobodyThere,
        "empty list",
        lambda w: (w.group("list", None), w.create(group="list"))[1],
    ),
    (
        "canary selector that matches nothing",
        NobodyThere,
        r"wave 1 \(canary\) takes none .*`line=z`",
        lambda w: w.create(canary(selector="line=z")),
    ),
    (
        "canary devices that are not in the group",
        NobodyThere,
        "none is named nobody or noone",
        lambda w: w.create(canary(devices=("nobody", "noone"))),
    ),
    (
        "canary group that is not there",
        CanaryGroupUnknown,
        "no group gone",
        lambda w: w.create(canary(group="gone")),
    ),
    # a second rollout of the same model would fight with the first for each device
    (
        "another one on its way",
        RolloutInTheWay,
        r"r\d+ \(detector 1.1.0 to cams\) is running",
        lambda w: (w.create(), w.create(version="1.2.0"))[1],
    ),
    (
        "end before the start",
        BadTimes,
        "end_at",
        lambda w: w.create(end_at=w.now() - timedelta(seconds=1)),
    ),
]


@pytest.mark.parametrize(
    ("error", "sentence", "create"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED]
)
def test_rollout_that_would_come_to_nothing_is_refused(
    world: World, error: type[ServerError], sentence: str, create: Callable[[World], str]
) -> None:
    with pytest.raises(error, match=sentence):
        create(world)


def test_version_that_fits_no_device_is_refused_with_the_reasons(world: World) -> None:
    with world.db.write() as session:
        session.execute(update(DeviceRow).values(facts={"runtime.openvino": "2025.1"}))
    with pytest.raises(NoVariantFits, match=r"any of the 10 devices of cams: 10 runtime_missing"):
        world.create()


def test_empty_group_may_be_wanted(world: World) -> None:
    world.group("later", "line=z")
    name = world.create(group="later", allow_empty=True)
    assert world.row(name).state == S.RUNNING


def test_group_with_a_rollout_on_the_books_cannot_be_deleted(world: World) -> None:
    world.create()
    with pytest.raises(GroupInUse), world.db.write() as session:
        delete_group(session, name="cams", actor=AUTHOR, now=world.now())


@pytest.mark.parametrize("name", ["r0", "r01", "x1", "r", "r-1", "r1x", "r99999999999999999999"])
def test_name_that_no_rollout_has_is_unknown(world: World, name: str) -> None:
    world.create()
    with pytest.raises(RolloutUnknown), world.db.read() as session:
        get_rollout(session, name)
