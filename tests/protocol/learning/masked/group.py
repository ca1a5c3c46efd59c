"""A group of devices that play a masked round in one process, with what each has made."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pilotwave_agent.learning.masked import steps
from pilotwave_agent.learning.masked.state import MaskedState
from pilotwave_agent.learning.masked.steps import Me
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.learning.masked.members import Members, verified_keys
from pilotwave_protocol.learning.masked.messages import Answer, split_message
from pilotwave_protocol.learning.plan import TrainingPlan
from pilotwave_protocol.learning.privacy import Mode, Privacy
from pilotwave_protocol.learning.statistics import write_numbers
from tests.protocol.learning.plans import RIDGE

MASKED = replace(RIDGE, privacy=Privacy(Mode.MASKED, 5), most_examples=200)


def plan_for(group: int) -> TrainingPlan:
    return replace(MASKED, privacy=Privacy(Mode.MASKED, group))


def me(name: str, plan: TrainingPlan, fleet: str = "field") -> Me:
    return Me(fleet, name, Ed25519PrivateKey.generate(), plan, sha256_hex(plan.to_bytes()))


def numbers_of(seed: int, plan: TrainingPlan) -> bytes:
    random = np.random.default_rng(seed)
    return write_numbers(random.uniform(-1, 1, plan.update_bytes // 4) * 100)


class Group:
    """Devices `d0`, `d1`, …; `states` is how far each has come."""

    def __init__(self, count: int, plan: TrainingPlan | None = None) -> None:
        self.plan = plan or plan_for(count)
        self.devices = {f"d{n}": me(f"d{n}", self.plan) for n in range(count)}
        self.numbers = {name: numbers_of(n, self.plan) for n, name in enumerate(self.devices)}
        self.states = {name: steps.make_keys(who, 1) for name, who in self.devices.items()}
        self.envelopes = [state.keys for state in self.states.values()]
        self.members = Members.listed([verified_keys(one) for one in self.envelopes])
        self.inputs: dict[str, bytes] = {}

    def share(self, names: Iterable[str]) -> None:
        for name in names:
            self.states[name] = steps.make_shares(
                self.devices[name], self.states[name], self.envelopes
            )

    def boxes(self, together: Collection[str], to: str) -> dict[str, bytes]:
        return {name: self.states[name].shares for name in together if name != to}

    def mask(self, together: Collection[str], names: Iterable[str]) -> None:
        for name in names:
            who, state = self.devices[name], self.states[name]
            state = steps.take_boxes(who, state, self.boxes(together, name))
            message = steps.masked_input(who, state, self.numbers[name])
            self.states[name], self.inputs[name] = state, split_message(message)[1]

    def answer(self, survivors: Collection[str], names: Iterable[str]) -> list[Answer]:
        found = []
        for name in names:
            asked = self.asked(name, survivors)
            self.states[name] = asked
            read = self.members.read(asked.answer, name)
            assert isinstance(read, Answer)
            found.append(read)
        return found

    def asked(self, name: str, survivors: Collection[str]) -> MaskedState:
        return steps.make_answer(self.devices[name], self.states[name], list(survivors))
