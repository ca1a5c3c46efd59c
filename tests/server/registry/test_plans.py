"""Training plans in a model's role: whoever signs versions signs them, and nobody else."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select

from pilotwave_protocol import names, signing
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.learning.plan import Base, StartHead, TrainingPlan, Validation
from pilotwave_protocol.learning.statistics import write_numbers
from pilotwave_protocol.manifest import TensorSpec
from pilotwave_protocol.trust import ModelPolicy
from pilotwave_server.errors import ServerError
from pilotwave_server.registry.checks import Unsigned
from pilotwave_server.registry.contents import BlobSizeWrong, BlobsMissing
from pilotwave_server.registry.plans import PlanChanged, PlanInvalid, PlanMissing, PlanOfNothing
from pilotwave_server.registry.publish import Published
from pilotwave_server.registry.tables import PlanRow
from pilotwave_server.retention.remove import unsigned
from tests.protocol.learning.models import any_classifier
from tests.protocol.learning.plans import RIDGE, SGD
from tests.server.registry.offline import new_key
from tests.server.registry.registry import Registry

EMBEDDING = TensorSpec("active", "float32", (-1, 6))
VALIDATION = bytes(5 * 7 * 4)
SEVEN = Validation("c" * 64, 5 * 8 * 4, 5)


@pytest.fixture
def based(registry: Registry) -> Registry:
    """With a version whose embedding is among its outputs."""
    files = {"model.onnx": any_classifier()}
    registry.publish("detector", "1.0.0", files=files, outputs=(EMBEDDING,))
    return registry


def plan_of(registry: Registry, **changes: object) -> TrainingPlan:
    base = registry.role("detector").signed.targets["models/detector/1.0.0.json"]
    validation = Validation(registry.blobs.put(VALIDATION), len(VALIDATION), 5)
    fields = {"base": Base("1.0.0", base.hashes["sha256"], "onnx-fp32"), "validation": validation}
    return replace(RIDGE, **{**fields, **changes})  # type: ignore[arg-type]  # by name


def publish(registry: Registry, *plans: TrainingPlan, signer=None, upload=True) -> Published:
    role = registry.offline.next_role(registry.role("detector"))
    if upload:
        for plan in plans:
            registry.blobs.put(plan.to_bytes())
    named = {plan.plan: sha256_hex(plan.to_bytes()) for plan in plans}
    policy = signing.policy_of(role.signed, "detector")
    signing.set_policy(role.signed, "detector", replace(policy, plans=named))
    signing.sign(role, [signer or registry.offline.publishers["detector"]])
    return registry.hand_in("detector", role)


def seen_by_a_device(registry: Registry, folder: Path) -> ModelPolicy:
    target = registry.device(folder).refresh().get_targetinfo(names.policy_path("detector"))
    assert target is not None
    return ModelPolicy.from_custom(target.custom)


def test_a_device_finds_the_digest_of_a_plan_in_what_its_publisher_signed(
    based: Registry, tmp_path: Path
) -> None:
    plan = plan_of(based)
    publish(based, plan)
    digest = sha256_hex(plan.to_bytes())
    assert seen_by_a_device(based, tmp_path / "device").plans == {"autumn-1": digest}
    with based.db.read() as session:
        row = session.scalars(select(PlanRow)).one()
        assert (row.name, row.sha256, row.content) == ("autumn-1", digest, plan.to_bytes())


@pytest.mark.parametrize("who", ["a stranger", "another model's publisher", "online", "director"])
def test_a_plan_that_anybody_else_signs_is_refused(based: Registry, who: str) -> None:
    if who == "another model's publisher":
        based.create_model("other")
        signer = based.offline.publishers["other"]
    elif who == "a stranger":
        signer = new_key()
    else:  # a key that the server made
        signer = based.trust.keys(who)[-1].signer
    with pytest.raises(Unsigned):
        publish(based, plan_of(based), signer=signer)
    with based.db.read() as session:
        assert session.scalars(select(PlanRow)).all() == []


def test_a_plan_may_be_dropped_and_named_again_but_not_changed(
    based: Registry, tmp_path: Path
) -> None:
    plan = plan_of(based)
    publish(based, plan)
    publish(based)
    assert seen_by_a_device(based, tmp_path / "device").plans == {}
    with pytest.raises(PlanChanged, match="autumn-1 of detector was published with other content"):
        publish(based, replace(plan, penalty="2"))
    publish(based, plan)
    assert list(seen_by_a_device(based, tmp_path / "device").plans) == ["autumn-1"]


def test_a_yank_and_a_new_version_keep_the_plans(based: Registry, tmp_path: Path) -> None:
    publish(based, plan_of(based))
    based.publish("detector", "1.1.0")
    based.yank("detector", "1.1.0")
    assert list(seen_by_a_device(based, tmp_path / "device").plans) == ["autumn-1"]


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"plan": "autumn-1", "model": "other"}, PlanInvalid, "is plan autumn-1 of other"),
        ({"base": Base("9.9.9", "a" * 64, "onnx-fp32")}, PlanOfNothing, "not published"),
        ({"base": Base("1.0.0", "a" * 64, "onnx-fp32")}, PlanOfNothing, "has the manifest"),
        ({"embedding": "hidden"}, PlanOfNothing, "expected an output hidden"),
        (
            {"features": 7, "validation": SEVEN},
            PlanOfNothing,
            r"of \[-1, 7\]; its manifest says active \[-1, 6\]",
        ),
        ({"validation": Validation("c" * 64, 28, 1)}, BlobsMissing, "its validation file: upload"),
        ({"validation": Validation(sha256_hex(VALIDATION), 28, 1)}, BlobSizeWrong, "140 bytes"),
    ],
)
def test_a_plan_that_does_not_hold_together_is_refused(
    based: Registry, changes: dict[str, object], error: type[ServerError], words: str
) -> None:
    with pytest.raises(error, match=words):
        publish(based, plan_of(based, **changes))


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_a_plan_of_another_variant_or_of_no_blob_is_refused(
    based: Registry,
) -> None:
    base = replace(plan_of(based).base, variant="tflite")
    with pytest.raises(PlanOfNothing, match="has no variant tflite"):
        publish(based, plan_of(based, base=base))
    with pytest.raises(PlanMissing, match="upload it as the blob"):
        publish(based, plan_of(based), upload=False)
    role = based.offline.next_role(based.role("detector"))
    named = {"winter": based.blobs.put(plan_of(based).to_bytes())}
    signing.set_policy(role.signed, "detector", ModelPolicy(plans=named))
    signing.sign(role, [based.offline.publishers["detector"]])
    with pytest.raises(PlanInvalid, match="is plan autumn-1 of detector"):
        based.hand_in("detector", role)


HEAD = np.random.default_rng(1).normal(size=(7, 3))


def steps_of(registry: Registry, raw: bytes = write_numbers(HEAD), **head: str) -> TrainingPlan:
    """A plan of gradient steps from the head `raw`."""
    known = {"sha256": registry.blobs.put(raw), "length": f"{np.linalg.norm(HEAD):.6g}", **head}
    return replace(SGD, base=plan_of(registry).base, head=StartHead(**known))


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_gradient_steps_begin_with_a_head_that_is_here(based: Registry) -> None:
    with pytest.raises(BlobsMissing, match="its head: upload"):
        publish(based, steps_of(based, sha256="c" * 64))
    with pytest.raises(BlobSizeWrong, match="its head has 80 bytes; the plan says 84"):
        publish(based, steps_of(based, bytes(80)))
    with pytest.raises(PlanInvalid, match="its head: expected finite numbers"):
        publish(based, steps_of(based, write_numbers(HEAD * np.inf)))
    # devices would refuse the heads of its rounds
    with pytest.raises(PlanInvalid, match=r"its head has a norm of .*; the plan says 0\.5"):
        publish(based, steps_of(based, length="0.5"))
    publish(based, steps_of(based))


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_a_plan_of_a_yanked_version_is_refused(based: Registry) -> None:
    plan = plan_of(based)
    based.yank("detector", "1.0.0")
    with pytest.raises(PlanOfNothing, match="or was yanked"):
        publish(based, plan)


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_what_a_plan_needs_is_not_cleared_away(based: Registry) -> None:
    plan, steps = plan_of(based), replace(steps_of(based), plan="winter")
    publish(based, plan, steps)
    later = based.clock() + timedelta(days=30)
    assert plan.validation is not None
    assert steps.head is not None
    with based.db.read() as session:
        cleared = session.scalars(unsigned(later)).all()
    assert not {plan.validation.sha256, steps.head.sha256} & set(cleared)
