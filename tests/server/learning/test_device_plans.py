"""Plans of the scope `device`: what the registry takes, and how a device gets one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.learning.device_plan import DevicePlan, Kind, Scores
from pilotwave_protocol.learning.plan import Base
from pilotwave_protocol.manifest import TensorSpec
from pilotwave_server.registry.plans import PlanInvalid, PlanOfNothing
from tests.protocol.learning.models import any_classifier
from tests.protocol.learning.plans import DEVICE
from tests.server.device_api.peer import code_of
from tests.server.fleet_fixtures import Fleet
from tests.server.learning.test_rounds import publish_plan, start
from tests.server.registry.registry import Registry


@pytest.fixture
def published(published: Registry) -> Registry:
    """With a version whose embedding and scores are among its outputs."""
    outputs = (
        TensorSpec("active", "float32", (-1, 6)),
        TensorSpec("probs", "float32", (-1, 3)),
    )
    published.publish("detector", "2.0.0", files={"model.onnx": any_classifier()}, outputs=outputs)
    return published


def plan_of(registry: Registry, **changes: Any) -> DevicePlan:
    base = registry.role("detector").signed.targets["models/detector/2.0.0.json"]
    fields = {
        "base": Base("2.0.0", base.hashes["sha256"], "onnx-fp32"),
        "features": 6,
        "deadline": registry.clock().replace(year=registry.clock().year + 1),
    }
    return replace(DEVICE, **{**fields, **changes})


def test_a_device_gets_a_plan_by_its_digest(fleet: Fleet) -> None:
    plan = plan_of(fleet.registry)
    publish_plan(fleet.registry, plan)
    cam = fleet.device("cam-1", kind="cam")
    path = f"/device/v1/plans/{sha256_hex(plan.to_bytes())}"
    given = {"Authorization": f"Bearer {cam.token}"}
    assert cam.http.get(path, headers=given).content == plan.to_bytes()
    assert cam.http.get(path).status_code == 401
    missing = cam.http.get(f"/device/v1/plans/{'0' * 64}", headers=given)
    assert code_of(missing) == (404, "plan_unknown")
    assert cam.http.get("/device/v1/plans/..%2f", headers=given).status_code in (404, 422)


def test_no_round_is_started_for_it(fleet: Fleet) -> None:
    publish_plan(fleet.registry, plan_of(fleet.registry))
    fleet.group("cams", "kind=cam")
    answer = start(fleet, plan="here-1")
    assert code_of(answer) == (409, "experiment_not_possible")
    assert "carry it out by themselves" in answer.text


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"features": 7}, PlanOfNothing),
        ({"classes": 4}, PlanOfNothing),
        ({"scores": Scores("logits", Kind.LOGITS)}, PlanOfNothing),
        ({"base": Base("2.0.0", "a" * 64, "onnx-fp32")}, PlanOfNothing),
        ({"least_examples": 3}, PlanInvalid),
    ],
)
def test_what_fits_no_version_is_refused(
    fleet: Fleet, changes: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        publish_plan(fleet.registry, plan_of(fleet.registry, **changes))
