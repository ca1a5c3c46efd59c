"""Whom an experiment asks: waves, pace, conditions, and when it gives up."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import httpx
import pytest

from pilotwave_server.learning.advance import Seen, advance_all, next_wave, too_many_failed
from pilotwave_server.learning.policy import LearnPolicy, read_policy, store_policy, stored_policy
from pilotwave_server.rollouts.policies.faults import PolicyInvalid
from tests.server.device_api.peer import SimulatedDevice, code_of
from tests.server.fleet_fixtures import Fleet, only_sqlite
from tests.server.learning.test_rounds import (
    EXPERIMENTS,
    cams,
    published,
    send,
    start,
    the_experiment,
    the_round,
    update,
    waiting,
)

__all__ = ["cams", "published"]
pytestmark = pytest.mark.long

NOW = datetime(2026, 1, 31, tzinfo=timezone.utc)
TWO = "{percent: 50%, advance: {answered: 60%, after: 2d}}, {percent: 100%}"


def policy(text: str) -> LearnPolicy:
    return read_policy(name=None, text=f"name: p\n{text}\n")


def seen(**changes: Any) -> Seen:
    given = {"wave": 0, "devices": 10, "answered": 0, "opened_at": NOW, "failed": {}}
    return Seen(**{**given, **changes})


@pytest.mark.parametrize(
    ("changes", "later", "opens"),
    [
        ({}, 0, None),
        ({"answered": 5}, 0, None),
        ({"answered": 6}, 0, "6 of 10 answered, 60% or more"),
        ({"answered": 1}, 2, "1 of 10 answered, and its time is over"),
        ({"devices": 0}, 1, None),
        ({"devices": 0}, 2, "0 of 0 answered, and its time is over"),
        ({"answered": 10, "wave": 1}, 9, None),
    ],
)
def test_the_next_wave_opens_by_share_or_by_time(
    changes: dict[str, Any], later: int, opens: str | None
) -> None:
    found = next_wave(policy(f"waves: [{TWO}]"), seen(**changes), NOW + timedelta(days=later))
    assert found == opens


def test_an_experiment_is_given_up_with_the_numbers() -> None:
    strict = policy(f"waves: [{TWO}]\nmax_failed: 2")
    two = {"impossible_update": 1, "out_of_memory": 1}
    assert too_many_failed(strict, seen(failed=two)) is None
    assert too_many_failed(strict, seen(failed={**two, "timed_out": 1})) == (
        "3 devices failed, over max_failed 2: 1 impossible_update, 1 out_of_memory, 1 timed_out"
    )
    assert too_many_failed(policy(f"waves: [{TWO}]"), seen(failed={"timed_out": 99})) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("waves: []", "at least one wave"),
        ("waves: [{percent: 50%}, {percent: 10%}]", "waves only add devices"),
        ("waves: [{percent: 10%, count: 3}]", "exactly one of"),
        ("waves: [{percent: 10%, gates: []}]", "unknown key"),
        ("waves: [{percent: 10%}]\nconditions: {battery_min: 50%}", "unknown key"),
        ("waves: [{percent: 10%}]\non_failure: rollback", "unknown key"),
        ("waves: [{percent: 10%}]\nconditions: {network: metered}", "`unmetered`"),
        ("waves: [{percent: 10%, advance: {answered: 0%}}]", "a share from 1% to 100%"),
    ],
)
def test_a_policy_that_is_none_is_refused_with_its_place(text: str, words: str) -> None:
    with pytest.raises(PolicyInvalid, match=words):
        policy(text)


def test_a_policy_is_kept_whole() -> None:
    for name in ("everyone", "careful"):
        found = read_policy(name=name, text=None)
        assert stored_policy(store_policy(found)) == found


def begin(fleet: Fleet, text: str) -> httpx.Response:
    made = start(fleet, policy_text=f"name: p\n{text}\n")
    assert made.status_code == 201, made.text
    return made


def test_only_the_open_waves_devices_take_part(fleet: Fleet, cams: list[SimulatedDevice]) -> None:
    begin(fleet, "waves: [{count: 2, advance: {answered: 100%, after: 2d}}, {percent: 100%}]")
    inside = [cam for cam in cams if waiting(cam)]
    outside = [cam for cam in cams if cam not in inside]
    assert (len(inside), the_round(fleet)["waiting"]) == (2, 2)
    assert code_of(send(outside[0], update(fleet, outside[0]))) == (409, "round_over")
    for seed, cam in enumerate(inside):
        assert send(cam, update(fleet, cam, seed)).status_code == 204
    assert waiting(outside[0]) == []
    advance_all(fleet.context.db, now=fleet.context.clock())
    found = the_experiment(fleet)
    assert (found["wave"], found["wave_devices"]) == (1, 4)
    assert all(waiting(cam) for cam in outside)
    assert send(outside[0], update(fleet, outside[0], 5)).status_code == 204


@only_sqlite
def test_no_more_devices_are_at_it_than_the_pace_allows(
    fleet: Fleet, cams: list[SimulatedDevice]
) -> None:
    slow = "pace: {max_in_flight: 2}\ndeadlines: {lease: 10m}"
    begin(fleet, f"waves: [{{percent: 100%}}]\n{slow}")
    at_it = [cam for cam in cams if waiting(cam)]
    assert len(at_it) == 2
    assert [cam for cam in cams if waiting(cam)] == at_it  # asked again, and still the same
    assert send(at_it[0], update(fleet, at_it[0])).status_code == 204
    assert len([cam for cam in cams if waiting(cam)]) == 2
    fleet.context.clock.advance(minutes=11)  # type: ignore[attr-defined]
    late = [cam for cam in cams if cam not in at_it and waiting(cam)]
    assert len(late) == 2  # those who said nothing have lost their place


@only_sqlite
def test_too_many_devices_that_fail_end_the_experiment(
    fleet: Fleet, cams: list[SimulatedDevice]
) -> None:
    begin(fleet, "waves: [{percent: 100%}]\nmax_failed: 1")
    assert send(cams[2], update(fleet, cams[2])).status_code == 204
    for cam in cams[:2]:
        wrong = update(fleet, cam, examples=41)
        for _ in range(2):  # it counts once, however often it comes
            assert code_of(send(cam, wrong)) == (422, "impossible_update")
        advance_all(fleet.context.db, now=fleet.context.clock())
    found = the_experiment(fleet)
    assert found["state"] == "failed"
    assert found["detail"] == "2 devices failed, over max_failed 1: 2 impossible_update"
    assert (found["round"]["failed"], found["round"]["state"]) == (2, "failed")
    assert waiting(cams[3]) == []


@only_sqlite
def test_conditions_reach_the_device(fleet: Fleet, cams: list[SimulatedDevice]) -> None:
    window = "{cron: '0 1 * * *', duration: 4h}"
    begin(fleet, f"waves: [{{percent: 100%}}]\nwindows: [{window}]\nconditions: {{idle: true}}")
    given = {"Authorization": f"Bearer {cams[0].token}"}
    (found,) = cams[0].http.get("/device/v1/learning", headers=given).json()["rounds"]
    assert found["conditions"] == {
        "idle": True,
        "windows": [{"cron": "0 1 * * *", "duration_s": 14400, "timezone": "device"}],
    }


@only_sqlite
def test_a_policy_with_faults_starts_nothing(fleet: Fleet, cams: list[SimulatedDevice]) -> None:
    for wrong, code in (
        ({"policy_text": "name: p\nwaves: []\n"}, (422, "policy_invalid")),
        ({"policy": "standard"}, (404, "policy_unknown")),
    ):
        assert code_of(start(fleet, **wrong)) == code
    assert fleet.operator.get(EXPERIMENTS).json()["items"] == []
