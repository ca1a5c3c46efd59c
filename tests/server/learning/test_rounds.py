"""Rounds of training plans over HTTP: who may take part, what is kept, what comes of it."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import select

from pilotwave_agent.learning.compute import ridge_update
from pilotwave_protocol import dsse, signing
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.learning.examples import write_examples
from pilotwave_protocol.learning.plan import Base, TrainingPlan, Validation
from pilotwave_protocol.learning.update import UPDATE_TYPE, Update, join_update
from pilotwave_protocol.manifest import TensorSpec
from pilotwave_server.blobs.port import BlobStore
from pilotwave_server.learning.finish import finish, finish_all
from pilotwave_server.learning.steer import end
from pilotwave_server.learning.tables import UpdateRow
from pilotwave_server.registry.trust import TrustStore
from tests.protocol.learning.models import any_classifier
from tests.protocol.learning.plans import RIDGE
from tests.server.device_api.peer import FLEET, SimulatedDevice, code_of
from tests.server.fleet_fixtures import Fleet
from tests.server.registry.registry import Registry

pytestmark = pytest.mark.long

EXPERIMENTS = "/api/v1/learning/experiments"


def examples(rows: int, seed: int, *, lies: bool = False) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    classes = random.integers(0, 3, rows)
    x = np.eye(6)[classes * 2] + random.normal(0, 0.3, (rows, 6))
    return x, (classes + 1) % 3 if lies else classes


@pytest.fixture
def published(published: Registry) -> Registry:
    """With a version whose embedding is among its outputs, and a plan for it."""
    embedding = TensorSpec("active", "float32", (-1, 6))
    published.publish(
        "detector", "2.0.0", files={"model.onnx": any_classifier()}, outputs=(embedding,)
    )
    publish_plan(published, plan_of(published))
    return published


def plan_of(registry: Registry, **changes: Any) -> TrainingPlan:
    base = registry.role("detector").signed.targets["models/detector/2.0.0.json"]
    file = write_examples(*examples(50, 999))
    fields = {
        "base": Base("2.0.0", base.hashes["sha256"], "onnx-fp32"),
        "validation": Validation(registry.blobs.put(file), len(file), 50),
        "least_devices": 3,
        "deadline": registry.clock().replace(year=registry.clock().year + 1),
    }
    return replace(RIDGE, **{**fields, **changes})


def publish_plan(registry: Registry, *plans: TrainingPlan) -> None:
    role = registry.offline.next_role(registry.role("detector"))
    named = {plan.plan: registry.blobs.put(plan.to_bytes()) for plan in plans}
    policy = signing.policy_of(role.signed, "detector")
    signing.set_policy(role.signed, "detector", replace(policy, plans=named))
    registry.hand_in("detector", signing.sign(role, [registry.offline.publishers["detector"]]))


@pytest.fixture
def cams(fleet: Fleet) -> list[SimulatedDevice]:
    fleet.group("cams", "kind=cam")
    return [fleet.device(f"cam-{n}", kind="cam") for n in range(4)]


def start(fleet: Fleet, **changes: str) -> httpx.Response:
    wanted = {"model": "detector", "plan": "autumn-1", "group": "cams", **changes}
    return fleet.operator.post(EXPERIMENTS, json=wanted)


def update(
    here: Fleet, cam: SimulatedDevice, seed: int = 0, *, lies: bool = False,
    key: Ed25519PrivateKey | None = None, numbers: bytes | None = None, **changes: Any,
) -> bytes:  # fmt: skip
    plan = plan_of(here.registry)
    found = ridge_update([examples(40, seed, lies=lies)], plan).to_bytes()
    given = {
        "fleet": FLEET, "device": cam.name, "model": "detector", "round": 1, "examples": 40,
        "plan": sha256_hex(plan.to_bytes()), "numbers": sha256_hex(found), "size": len(found),
    }  # fmt: skip
    statement = Update(**{**given, **changes}).to_bytes()
    envelope = dsse.sign(UPDATE_TYPE, statement, key or cam.key)
    return join_update(envelope, found if numbers is None else numbers)


def send(cam: SimulatedDevice, raw: bytes) -> httpx.Response:
    given = {"Authorization": f"Bearer {cam.token}", "Content-Type": "application/octet-stream"}
    return cam.http.post("/device/v1/updates", content=raw, headers=given)


def waiting(cam: SimulatedDevice) -> list[bytes]:
    answer = cam.http.get("/device/v1/learning", headers={"Authorization": f"Bearer {cam.token}"})
    assert answer.status_code == 200, answer.text
    return [base64.b64decode(item["content"]) for item in answer.json()["rounds"]]


def the_experiment(fleet: Fleet) -> dict[str, Any]:
    found: dict[str, Any] = fleet.operator.get(EXPERIMENTS).json()["items"][0]
    return found


def the_round(fleet: Fleet) -> dict[str, Any]:
    found: dict[str, Any] = the_experiment(fleet)["round"]
    return found


def test_a_round_from_its_start_to_its_head(fleet: Fleet, cams: list[SimulatedDevice]) -> None:
    assert waiting(cams[0]) == []
    made = start(fleet)
    assert made.status_code == 201, made.text
    plan = plan_of(fleet.registry)
    assert waiting(cams[0]) == [plan.to_bytes()]
    for seed, cam in enumerate(cams):
        assert send(cam, update(fleet, cam, seed, lies=seed == 3)).status_code == 204
    assert waiting(cams[0]) == []
    assert (the_round(fleet)["devices"], the_round(fleet)["examples"]) == (4, 160)
    head = f"{EXPERIMENTS}/{made.json()['id']}/head"
    assert code_of(fleet.operator.get(head)) == (409, "no_result")
    assert fleet.operator.post(f"{EXPERIMENTS}/{made.json()['id']}/end").status_code == 204
    found = the_round(fleet)
    assert (found["state"], found["left_out"]) == ("done", 1)
    assert the_experiment(fleet)["state"] == "completed"
    assert found["right"] > found["right_with_all"]
    devices = fleet.operator.get(f"{EXPERIMENTS}/{made.json()['id']}/devices").json()
    assert [d["device"] for d in devices if d["gain"] is not None] == ["cam-3"]
    honest = [ridge_update([examples(40, seed)], plan) for seed in range(3)]
    own = ridge_update([examples(50, 999)], replace(plan, clip="1e9"))
    wanted = (honest[0] + honest[1] + honest[2] + own).head(1.0)
    got = np.frombuffer(fleet.operator.get(head).content, "<f4").reshape(7, 3)
    np.testing.assert_allclose(got, wanted, atol=1e-4)
    with fleet.context.db.read() as session:
        assert {row.content for row in session.scalars(select(UpdateRow))} == {None}
    # what was ended takes no more, and is not ended twice
    assert code_of(send(cams[0], update(fleet, cams[0]))) == (409, "round_over")
    again = fleet.operator.post(f"{EXPERIMENTS}/{made.json()['id']}/end")
    assert code_of(again) == (409, "round_not_open")


def test_an_update_counts_once(fleet: Fleet, cams: list[SimulatedDevice]) -> None:
    start(fleet)
    raw = update(fleet, cams[0])
    for _ in range(3):
        assert send(cams[0], raw).status_code == 204
    assert code_of(send(cams[0], update(fleet, cams[0], 7))) == (409, "update_repeated")
    assert the_round(fleet)["devices"] == 1
    # another's, sent again under one's own name
    assert code_of(send(cams[1], raw)) == (422, "bad_update")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"key": Ed25519PrivateKey.generate()}, (422, "bad_update")),
        ({"device": "cam-1"}, (422, "bad_update")),
        ({"fleet": "another"}, (422, "bad_update")),
        ({"numbers": bytes(196)}, (422, "bad_update")),
        ({"size": 200}, (422, "bad_update")),
        ({"plan": "c" * 64}, (409, "round_over")),
        ({"round": 2}, (409, "round_over")),
        ({"examples": 41}, (422, "impossible_update")),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_wrong_update_is_refused_and_the_right_one_still_taken(
    fleet: Fleet, cams: list[SimulatedDevice], changes: dict[str, Any], expected: tuple[int, str]
) -> None:
    start(fleet)
    assert code_of(send(cams[0], update(fleet, cams[0], **changes))) == expected
    assert send(cams[0], update(fleet, cams[0])).status_code == 204


def test_a_device_of_another_group_takes_no_part(fleet: Fleet, cams: list[SimulatedDevice]) -> None:
    start(fleet)
    other = fleet.device("robot-1", kind="robot")
    assert waiting(other) == []
    assert code_of(send(other, update(fleet, other))) == (409, "round_over")


def test_a_round_that_too_few_answer_fails_and_may_be_started_again(
    fleet: Fleet, cams: list[SimulatedDevice]
) -> None:
    number = start(fleet).json()["id"]
    assert code_of(start(fleet)) == (409, "experiment_not_possible")
    for cam in cams[:2]:
        assert send(cam, update(fleet, cam)).status_code == 204
    fleet.operator.post(f"{EXPERIMENTS}/{number}/end")
    found = the_experiment(fleet)
    assert (found["state"], found["detail"]) == ("failed", "2 of 3 devices took part")
    assert found["round"]["state"] == "failed"
    assert start(fleet).status_code == 201
    assert len(waiting(cams[0])) == 1


def test_a_round_ends_at_its_plans_deadline(fleet: Fleet, cams: list[SimulatedDevice]) -> None:
    start(fleet)
    for seed, cam in enumerate(cams):
        assert send(cam, update(fleet, cam, seed)).status_code == 204
    over = plan_of(fleet.registry).deadline
    finish_all(fleet.context.db, fleet.context.get(BlobStore), now=over)
    assert the_round(fleet)["state"] == "done"


def test_a_server_that_dies_while_a_round_closes_finishes_it_later(
    fleet: Fleet, cams: list[SimulatedDevice]
) -> None:
    number = start(fleet).json()["id"]
    for seed, cam in enumerate(cams):
        assert send(cam, update(fleet, cam, seed)).status_code == 204
    now, blobs = fleet.context.clock(), fleet.context.get(BlobStore)
    with fleet.context.db.write() as session:
        row = end(session, number, actor="token/admin", now=now)
    assert the_round(fleet)["state"] == "closing"
    assert code_of(send(cams[0], update(fleet, cams[0], 9))) == (409, "round_over")
    for _ in range(2):  # by two processes, one after the other
        finish_all(fleet.context.db, blobs, now=now)
        assert the_round(fleet)["state"] == "done"
    finish(fleet.context.db, blobs, row, now=now)
    assert the_round(fleet)["devices"] == 4


def test_a_group_may_go_while_its_round_is_open(fleet: Fleet, cams: list[SimulatedDevice]) -> None:
    start(fleet)
    assert fleet.operator.delete("/api/v1/groups/cams").status_code == 204
    assert waiting(cams[0]) == []
    assert the_experiment(fleet)["group"] == "cams"


def test_a_plan_that_its_publisher_dropped_starts_nothing(fleet: Fleet) -> None:
    fleet.group("cams", "kind=cam")
    publish_plan(fleet.registry)
    fleet.context.get(TrustStore).committed()
    assert code_of(start(fleet)) == (404, "plan_unknown")
    assert code_of(start(fleet, plan="winter")) == (404, "plan_unknown")
    assert code_of(start(fleet, group="nobody")) in [(404, "plan_unknown"), (404, "group_unknown")]


def step(fleet: Fleet, word: str) -> httpx.Response:
    return fleet.operator.post(f"{EXPERIMENTS}/1/{word}")


def test_a_paused_experiment_asks_nobody_and_takes_what_still_comes(
    fleet: Fleet, cams: list[SimulatedDevice]
) -> None:
    start(fleet)
    assert step(fleet, "pause").json()["detail"] == "paused by token/test-operator"
    assert code_of(step(fleet, "pause")) == (409, "wrong_experiment_state")
    assert waiting(cams[0]) == []
    assert send(cams[0], update(fleet, cams[0])).status_code == 204
    assert step(fleet, "resume").json()["state"] == "running"
    assert len(waiting(cams[1])) == 1
    assert the_round(fleet)["devices"] == 1


def test_a_stopped_experiment_keeps_no_update_and_its_plan_may_begin_again(
    fleet: Fleet, cams: list[SimulatedDevice]
) -> None:
    start(fleet)
    assert send(cams[0], update(fleet, cams[0])).status_code == 204
    stopped = step(fleet, "stop").json()
    assert (stopped["state"], stopped["ended_by"]) == ("stopped", "token/test-operator")
    assert code_of(send(cams[1], update(fleet, cams[1]))) == (409, "round_over")
    with fleet.context.db.read() as session:
        assert {row.content for row in session.scalars(select(UpdateRow))} == {None}
    for word in ("pause", "resume", "stop"):
        assert code_of(step(fleet, word)) == (409, "wrong_experiment_state")
    assert code_of(step(fleet, "end")) == (409, "round_not_open")
    assert start(fleet).status_code == 201
