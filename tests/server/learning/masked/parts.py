"""Devices that play masked rounds over HTTP, with the agent's own steps, and no disk."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import httpx

from pilotwave_agent.learning.compute import ridge_update
from pilotwave_agent.learning.masked import steps
from pilotwave_agent.learning.masked.state import MaskedState
from pilotwave_agent.learning.masked.steps import Me
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.learning.masked.messages import join_message
from pilotwave_protocol.learning.masked.step import Step, Wants, parse_step
from pilotwave_protocol.learning.plan import TrainingPlan
from pilotwave_protocol.learning.privacy import Mode, Privacy
from pilotwave_protocol.learning.statistics import Statistics
from tests.server.device_api.peer import FLEET, SimulatedDevice
from tests.server.learning.test_rounds import examples, plan_of, publish_plan
from tests.server.registry.registry import Registry

GROUP = 5
THRESHOLD = 4


def masked_plan(registry: Registry, **changes: Any) -> TrainingPlan:
    privacy = Privacy(Mode.MASKED, GROUP)
    return plan_of(
        registry, **{"plan": "masked-1", "privacy": privacy, "most_examples": 200, **changes}
    )


def publish_masked(registry: Registry) -> TrainingPlan:
    plan = masked_plan(registry)
    publish_plan(registry, plan)
    return plan


class Part:
    """One device's part. `sums` are its true ones."""

    def __init__(
        self, cam: SimulatedDevice, plan: TrainingPlan, seed: int, rows: int = 40, **given: Any
    ) -> None:
        self.cam, self.plan = cam, plan
        self.digest = sha256_hex(plan.to_bytes())
        self.me = Me(FLEET, cam.name, cam.key, plan, self.digest)
        self.sums: Statistics = ridge_update([examples(rows, seed, **given)], plan)
        self.numbers = self.sums.to_bytes()
        self.state: MaskedState | None = None
        self.last = b""

    def step(self) -> Step:
        headers = {"Authorization": f"Bearer {self.cam.token}"}
        answer = self.cam.http.get(f"/device/v1/masked/{self.digest}", headers=headers)
        assert answer.status_code == 200, answer.text
        return parse_step(answer.content)

    def send(self, message: bytes) -> httpx.Response:
        kind = "application/octet-stream"
        headers = {"Authorization": f"Bearer {self.cam.token}", "Content-Type": kind}
        return self.cam.http.post("/device/v1/masked", content=message, headers=headers)

    def make(self, step: Step) -> bytes:
        """What the device answers to a step, as the agent does."""
        match step.wants:
            case Wants.KEYS:
                self.state = steps.make_keys(self.me, 1)
            case Wants.LOST:
                self.state = steps.make_keys(self.me, step.attempt + 1)
            case Wants.SHARES:
                self.state = steps.make_shares(self.me, self._state, step.members)
                return join_message(self.state.shares)
            case Wants.INPUT:
                self.state = steps.take_boxes(self.me, self._state, step.boxes)
                return steps.masked_input(self.me, self.state, self.numbers)
            case Wants.ANSWER:
                self.state = steps.make_answer(self.me, self._state, step.survivors)
                return join_message(self.state.answer)
        return join_message(self._state.keys)

    @property
    def _state(self) -> MaskedState:
        assert self.state is not None
        return self.state

    def visit(self) -> Wants:
        """Take one step."""
        step = self.step()
        if step.wants not in (Wants.WAIT, Wants.OVER):
            self.last = self.make(step)
            answer = self.send(self.last)
            assert answer.status_code == 204, answer.text
        return step.wants


def visit_all(parts: list[Part]) -> list[str]:
    """Have each take one step; return what each was asked for."""
    return [part.visit().value for part in parts]


def sum_of(parts: list[Part]) -> Statistics:
    total = parts[0].sums
    for part in parts[1:]:
        total = total + part.sums
    return total


def with_numbers(part: Part, **changes: Any) -> None:
    """Give a part other numbers than its examples have."""
    part.sums = replace(part.sums, **changes)
    part.numbers = part.sums.to_bytes()
