"""Who may not have a device learn: anybody but the model's publisher, as of now."""

from __future__ import annotations

from dataclasses import replace

import pytest
from securesystemslib.signer import CryptoSigner

from pilotwave_protocol import signing
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.learning.plan import TrainingPlan
from tests.agent.learning.asking import AskingRegistry
from tests.agent.learning.test_take_part import leave, part, plan_of, sign
from tests.agent.learning.test_take_part import running as running
from tests.peers.device import Device
from tests.peers.registry import example


def stand_by(registry: AskingRegistry, model: str, *plans: TrainingPlan) -> None:
    """Have a model's role name exactly these plans."""
    policy = signing.policy_of(registry.roles[f"models-{model}"].signed, model)
    named = {plan.plan: sha256_hex(plan.to_bytes()) for plan in plans}
    registry.amend(
        model, lambda role: signing.set_policy(role, model, replace(policy, plans=named))
    )


@pytest.fixture
def plan(running: Device, registry: AskingRegistry) -> TrainingPlan:
    """A plan that the server asks for and nobody has signed yet."""
    made = plan_of(registry)
    registry.waiting = [made.to_bytes()]
    leave(running, 30)
    return made


def test_the_publisher_of_another_model_may_not(
    running: Device, registry: AskingRegistry, plan: TrainingPlan
) -> None:
    registry.publish("other", "1.0.0", example("1.0.0"))
    stand_by(registry, "other", plan)
    part(running)
    assert registry.updates == []
    sign(registry, plan)
    part(running)
    assert len(registry.updates) == 1


def test_a_key_that_the_server_made_may_not(
    running: Device, registry: AskingRegistry, plan: TrainingPlan
) -> None:
    publisher = registry.publishers["models-detector"]
    registry.publishers["models-detector"] = CryptoSigner.generate_ed25519()
    stand_by(registry, "detector", plan)
    part(running)
    assert registry.updates == []
    registry.publishers["models-detector"] = publisher
    sign(registry, plan)
    part(running)
    assert len(registry.updates) == 1


def test_a_plan_that_was_dropped_holds_no_more_even_where_its_old_signature_is_shown_again(
    running: Device, registry: AskingRegistry, plan: TrainingPlan
) -> None:
    stand_by(registry, "detector", plan)
    then = dict(registry.files)
    stand_by(registry, "detector")
    part(running)
    assert registry.updates == []
    # the server shows the metadata of before; this device has seen what is newer
    registry.files = {**registry.files, **then}
    part(running)
    assert registry.updates == []
