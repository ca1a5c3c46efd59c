"""Plans with several rounds over HTTP: each goes on from what the one before came to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx
import numpy as np
import pytest
from sqlalchemy import select
from sqlalchemy import update as sql_update

from pilotwave_agent.learning.compute import sgd_update
from pilotwave_protocol import dsse
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.learning.examples import write_examples
from pilotwave_protocol.learning.plan import (
    Aggregate,
    Noise,
    StartHead,
    Steps,
    TrainingPlan,
    Validation,
)
from pilotwave_protocol.learning.statistics import read_head, write_numbers
from pilotwave_protocol.learning.update import UPDATE_TYPE, Update, join_update
from pilotwave_server.blobs.port import BlobStore
from pilotwave_server.learning.finish import finish_all
from pilotwave_server.learning.results import step
from pilotwave_server.learning.tables import RoundRow, UpdateRow
from tests.protocol.learning.plans import SGD
from tests.server.device_api.peer import FLEET, SimulatedDevice, code_of
from tests.server.fleet_fixtures import Fleet, only_sqlite
from tests.server.learning.test_rounds import (
    EXPERIMENTS,
    cams,
    examples,
    plan_of,
    publish_plan,
    published,
    send,
    start,
    the_experiment,
    the_round,
    update,
)
from tests.server.registry.registry import Registry

__all__ = ["cams", "published"]
pytestmark = pytest.mark.long
START_HEAD = np.zeros((7, 3)) + 1e-3


def sgd_plan(registry: Registry, **changes: Any) -> TrainingPlan:
    raw, file = write_numbers(START_HEAD), write_examples(*examples(50, 999))
    known = vars(SGD) | {
        "base": plan_of(registry).base,
        "deadline": plan_of(registry).deadline,
        "head": StartHead(registry.blobs.put(raw), "0.01"),
        "validation": Validation(registry.blobs.put(file), len(file), 50),
        "steps": Steps(epochs=2, batch=16, rate="0.5"),
        "least_devices": 3,
        "rounds": 3,
        "clip": "2",
    }
    return TrainingPlan(**{**known, **changes})


def begin(fleet: Fleet, **changes: Any) -> TrainingPlan:
    """Publish a plan of gradient steps in place of the other one, and start it."""
    plan = sgd_plan(fleet.registry, plan="winter", **changes)
    publish_plan(fleet.registry, plan)
    made = start(fleet, plan="winter")
    assert made.status_code == 201, made.text
    return plan


def waits(cam: SimulatedDevice) -> int | None:
    """The number of the round that waits for a device."""
    answer = cam.http.get("/device/v1/learning", headers=token(cam))
    found = answer.json()["rounds"]
    return found[0]["round"] if found else None


def token(cam: SimulatedDevice) -> dict[str, str]:
    return {"Authorization": f"Bearer {cam.token}"}


def head(cam: SimulatedDevice, plan: TrainingPlan, number: int) -> httpx.Response:
    digest = sha256_hex(plan.to_bytes())
    path = f"/device/v1/learning/{digest}/rounds/{number}/head"
    return cam.http.get(path, headers=token(cam))


def change(
    cam: SimulatedDevice, plan: TrainingPlan, number: int, seed: int, *, lies: bool = False,
    ahead: int = 0,
) -> bytes:  # fmt: skip
    """What a device sends in a round: the change of the head that it was given."""
    before = read_head(head(cam, plan, number).content, features=6, classes=3)
    found, count = sgd_update(before, [examples(40, seed)], plan, seed=seed)
    raw = write_numbers(-found * 2 / np.linalg.norm(found) if lies else found)
    statement = Update(
        fleet=FLEET, device=cam.name, model="detector", plan=sha256_hex(plan.to_bytes()),
        round=number + ahead, examples=count, numbers=sha256_hex(raw), size=len(raw),
    ).to_bytes()  # fmt: skip
    return join_update(dsse.sign(UPDATE_TYPE, statement, cam.key), raw)


def answer_round(
    devices: Sequence[SimulatedDevice], plan: TrainingPlan, number: int, liars: int = 0
) -> list[bytes]:
    """Have each device answer; return the numbers."""
    sent = []
    for seed, cam in enumerate(devices):
        raw = change(cam, plan, number, seed, lies=seed < liars)
        assert send(cam, raw).status_code == 204
        sent.append(raw.partition(b"\n")[2])
    return sent


def end_round(fleet: Fleet) -> None:
    where = f"{EXPERIMENTS}/{the_experiment(fleet)['id']}/end"
    assert fleet.operator.post(where).status_code == 204


def look(fleet: Fleet, **later: Any) -> None:
    """What the server does every few seconds."""
    now = later.get("now") or fleet.context.clock()
    finish_all(fleet.context.db, fleet.context.get(BlobStore), now=now)


def detail(fleet: Fleet) -> dict[str, Any]:
    found: dict[str, Any] = fleet.operator.get(
        f"{EXPERIMENTS}/{the_experiment(fleet)['id']}"
    ).json()
    return found


def result(fleet: Fleet) -> np.ndarray:
    raw = fleet.operator.get(f"{EXPERIMENTS}/{the_experiment(fleet)['id']}/head").content
    return read_head(raw, features=6, classes=3)


def test_twenty_devices_learn_in_three_rounds_whatever_four_of_them_say(fleet: Fleet) -> None:
    fleet.group("cams", "kind=cam")
    devices = [fleet.device(f"cam-{n}", kind="cam") for n in range(20)]
    plan = begin(fleet)
    before = START_HEAD
    for number in (1, 2, 3):
        assert [waits(cam) for cam in devices[:3]] == [number] * 3
        sent = answer_round(devices, plan, number, liars=4)
        assert waits(devices[0]) is None
        if number == 1:
            end_round(fleet)  # who will answer is known from the second one on
        else:
            look(fleet)
        before = step(before, sent, plan).astype("<f4").astype(float)
        (done,) = [r for r in detail(fleet)["rounds"] if r["number"] == number]
        assert (done["state"], done["devices"]) == ("done", 20)
    found = detail(fleet)
    assert (found["state"], found["method"]) == ("completed", "sgd")
    rights = {r["number"]: r["right"] for r in found["rounds"]}
    assert rights[found["result"]] == max(rights.values()) > 0.9
    assert found["detail"] == f"the result is that of round {found['result']}"
    if found["result"] == 3:
        np.testing.assert_allclose(result(fleet), before, atol=1e-6)
    with fleet.context.db.read() as session:
        assert {row.content for row in session.scalars(select(UpdateRow))} == {None}


@only_sqlite
def test_an_update_counts_in_its_own_round_alone(fleet: Fleet, cams: list[SimulatedDevice]) -> None:
    plan = begin(fleet)
    first = [change(cam, plan, 1, seed) for seed, cam in enumerate(cams)]
    early = change(cams[0], plan, 1, 0, ahead=1)
    assert code_of(send(cams[0], early)) == (409, "round_over")
    for cam, raw in zip(cams, first, strict=True):
        assert send(cam, raw).status_code == 204
    end_round(fleet)
    assert the_round(fleet)["number"] == 2
    for cam, raw in zip(cams, first, strict=True):
        assert code_of(send(cam, raw)) == (409, "round_over")
    # of another kind of plan
    assert code_of(send(cams[0], update(fleet, cams[0], round=2)))[0] == 409
    assert the_round(fleet)["devices"] == 0
    longer = write_numbers(np.full((7, 3), 1.0))
    told = {"fleet": FLEET, "device": cams[0].name, "model": "detector", "examples": 40}
    told |= {"plan": sha256_hex(plan.to_bytes()), "round": 2}
    statement = Update(**told, numbers=sha256_hex(longer), size=len(longer)).to_bytes()
    raw = join_update(dsse.sign(UPDATE_TYPE, statement, cams[0].key), longer)
    assert code_of(send(cams[0], raw)) == (422, "impossible_update")


@only_sqlite
def test_changes_of_a_round_are_bounded_as_they_are_in_memory_together(
    fleet: Fleet, cams: list[SimulatedDevice]
) -> None:
    plan = begin(fleet)
    raw, another = change(cams[0], plan, 1, 0), change(cams[1], plan, 1, 1)
    with fleet.context.db.write() as session:
        session.execute(sql_update(RoundRow).values(size=(128 << 20) - plan.update_bytes))
    assert send(cams[0], raw).status_code == 204
    assert code_of(send(cams[1], another)) == (503, "round_full")


@only_sqlite
def test_a_head_is_for_those_that_its_round_waits_for(
    fleet: Fleet, cams: list[SimulatedDevice]
) -> None:
    plan = begin(fleet)
    other = fleet.device("robot-1", kind="robot")
    assert head(cams[0], plan, 1).content == write_numbers(START_HEAD)
    assert code_of(head(cams[0], plan, 2)) == (409, "round_over")
    assert code_of(head(other, plan, 1)) == (409, "round_over")
    assert code_of(head(cams[0], plan_of(fleet.registry), 1)) == (409, "round_over")
    answer_round(cams[:1], plan, 1)
    assert code_of(head(cams[0], plan, 1)) == (409, "round_over")


@only_sqlite
def test_a_round_that_too_few_answer_fails_and_the_best_head_so_far_stays(
    fleet: Fleet, cams: list[SimulatedDevice]
) -> None:
    plan = begin(fleet)
    answer_round(cams, plan, 1)
    end_round(fleet)
    after_one = result(fleet)
    answer_round(cams[:2], plan, 2)
    end_round(fleet)
    found = detail(fleet)
    assert found["state"] == "failed"
    told = "round 2: 2 of 3 devices took part; the result is that of round 1"
    assert found["detail"] == told
    np.testing.assert_array_equal(result(fleet), after_one)
    assert waits(cams[3]) is None


@only_sqlite
def test_a_later_round_closes_when_all_have_answered_that_answered_before(
    fleet: Fleet, cams: list[SimulatedDevice]
) -> None:
    plan = begin(fleet)
    answer_round(cams[:3], plan, 1)
    end_round(fleet)
    # one that was not there before does not stand for one that was
    answer_round([*cams[:2], cams[3]], plan, 2)
    look(fleet)
    assert the_round(fleet)["number"] == 2
    answer_round(cams[2:3], plan, 2)
    assert the_round(fleet)["state"] == "closing"
    look(fleet)
    assert (the_round(fleet)["number"], the_round(fleet)["state"]) == (3, "open")


@only_sqlite
def test_each_round_has_its_share_of_the_time_and_the_deadline_ends_all(
    fleet: Fleet, cams: list[SimulatedDevice]
) -> None:
    plan = begin(fleet, rounds=4)
    begun = fleet.context.clock()
    ends = detail(fleet)["rounds"][0]["ends_at"]
    share = (plan.deadline - begun) / 4
    assert ends[:16] == f"{begun + share:%Y-%m-%dT%H:%M}"
    answer_round(cams, plan, 1)
    look(fleet, now=begun + share)
    assert the_round(fleet)["number"] == 2
    answer_round(cams[:3], plan, 2)
    look(fleet, now=plan.deadline)
    found = detail(fleet)
    assert found["state"] == "completed"
    assert "the plan's time ended with round 2 of 4; the result is that of" in found["detail"]


@only_sqlite
def test_a_server_that_dies_between_two_rounds_opens_the_next_one_once(
    fleet: Fleet, cams: list[SimulatedDevice]
) -> None:
    plan = begin(fleet)
    answer_round(cams, plan, 1)
    end_round(fleet)
    sent = answer_round(cams, plan, 2)
    assert the_round(fleet)["state"] == "closing"
    before = result(fleet)  # of round 1, as no other is done
    for _ in range(3):
        look(fleet)
    assert [r["number"] for r in detail(fleet)["rounds"]] == [3, 2, 1]
    given = read_head(head(cams[0], plan, 3).content, features=6, classes=3)
    np.testing.assert_allclose(given, step(before, sent, plan), atol=1e-6)


@only_sqlite
def test_a_group_with_too_few_devices_for_the_noise_is_not_asked(
    fleet: Fleet, cams: list[SimulatedDevice]
) -> None:
    noisy = {"noise": Noise("1", "1e-5"), "aggregate": Aggregate.MEAN}
    plan = sgd_plan(fleet.registry, plan="winter", least_devices=5, **noisy)
    publish_plan(fleet.registry, plan)
    refused = start(fleet, plan="winter")
    assert code_of(refused) == (409, "experiment_not_possible")
    assert "group cams has 4 devices; the noise of plan winter takes 5" in refused.text
