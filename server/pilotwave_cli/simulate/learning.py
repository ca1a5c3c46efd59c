"""Virtual devices in training plans: they ask for rounds, and answer each once, as agents do.

What is real: a plan is answered only where the model's publisher stands by it and the device runs
what it is based on, the sums are sums of examples, and the device signs them. The examples are made
up: each device draws from classes that differ in their means, of a mixture of its own.
"""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol

import httpx
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pilotwave_cli.errors import Failed
from pilotwave_cli.simulate.believing import Trust
from pilotwave_cli.simulate.model import Model
from pilotwave_cli.simulate.tally import Tally
from pilotwave_protocol import dsse
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.errors import ProtocolError
from pilotwave_protocol.learning.plan import Method, TrainingPlan, parse_plan
from pilotwave_protocol.learning.statistics import Classes, Floats, Statistics, with_ones
from pilotwave_protocol.learning.update import UPDATE_TYPE, Update, join_update
from pilotwave_protocol.states import ModelState

SAME_FOR_ALL = 5
"""The seed of what classes look like: all devices live in one world."""
MIXTURE = 0.5
APART, SPREAD = 2.0, 0.5
FEW = 3
"""Honest devices have up to so many times the examples that it takes; liars as many as count."""


Round = tuple[str, int]
"""The digest of a plan, and which of its rounds."""


class Sender(Protocol):
    """What a device is asked for: who it is, what it runs, and its line to the server."""

    name: str
    fleet: str
    key: Ed25519PrivateKey
    token: str
    trust: Trust
    tally: Tally
    models: dict[str, Model]

    async def send(self, method: str, path: str, **given: Any) -> httpx.Response: ...


@dataclass
class Learner:
    """One device's part in plans. `lies`: its labels are wrong, and as many as may count."""

    chance: Random
    lies: bool = False
    _made: dict[Round, bytes] = field(default_factory=dict)
    _sent: set[Round] = field(default_factory=set)

    async def look(self, device: Sender) -> None:
        """Answer the rounds that wait for it. Raises `httpx.HTTPError`, `Failed`."""
        headers = {"Authorization": f"Bearer {device.token}"}
        answer = await device.send("GET", "/device/v1/learning", headers=headers)
        if answer.status_code != 200:
            return
        for raw, number in _rounds(answer):
            asked = sha256_hex(raw), number
            if asked in self._sent:
                continue
            if asked not in self._made:
                plan = await _checked(device, raw, asked[0])
                if plan is None:
                    continue
                self._made[asked] = await asyncio.to_thread(self._signed, device, plan, asked)
            await self._hand_in(device, asked, headers)

    async def _hand_in(self, device: Sender, asked: Round, headers: dict[str, str]) -> None:
        told = {**headers, "Content-Type": "application/octet-stream"}
        raw = self._made[asked]
        answer = await device.send("POST", "/device/v1/updates", content=raw, headers=told)
        device.tally.count(f"update_{answer.status_code}")
        if answer.status_code == 204:
            self._sent.add(asked)
            del self._made[asked]
        else:
            device.tally.said(answer.text[:200])

    def _signed(self, device: Sender, plan: TrainingPlan, asked: Round) -> bytes:
        embeddings, classes = self._examples(plan)
        numbers = _sums(embeddings, classes, plan).to_bytes()
        update = Update(
            fleet=device.fleet,
            device=device.name,
            model=plan.model,
            plan=asked[0],
            round=asked[1],
            examples=len(classes),
            numbers=sha256_hex(numbers),
            size=len(numbers),
        )
        return join_update(dsse.sign(UPDATE_TYPE, update.to_bytes(), device.key), numbers)

    def _examples(self, plan: TrainingPlan) -> tuple[Floats, Classes]:
        random = np.random.default_rng(self.chance.getrandbits(64))
        least, most = plan.least_examples, plan.most_examples
        count = most if self.lies else int(random.integers(least, min(FEW * least, most) + 1))
        mixture = random.dirichlet([MIXTURE] * plan.classes)
        classes = random.choice(plan.classes, count, p=mixture)
        means = class_means(plan.features, plan.classes)
        seen = means[classes] + random.normal(0, SPREAD, (count, plan.features))
        return np.maximum(seen, 0), plan.classes - 1 - classes if self.lies else classes


def _rounds(answer: httpx.Response) -> list[tuple[bytes, int]]:
    """The plans that wait, each with which of its rounds is open. Raises `Failed`."""
    try:
        items = answer.json()["rounds"]
        return [(base64.b64decode(item["content"]), int(item["round"])) for item in items]
    except (ValueError, KeyError, TypeError) as error:
        raise Failed(f"expected the rounds that wait; got {answer.text[:80]}") from error


async def _checked(device: Sender, raw: bytes, digest: str) -> TrainingPlan | None:
    """The plan, where the device may answer it now. Raises `Failed`."""
    try:
        plan = parse_plan(raw)
    except ProtocolError:
        device.tally.count("plan_unknown")
        return None
    model = device.models.get(plan.model)
    current = model.report.current if model else None
    if model is None or current is None or model.report.state is not ModelState.HEALTHY:
        return None
    if (current.sha256, current.variant) != (plan.base.sha256, plan.base.variant):
        return None
    if plan.method is not Method.RIDGE or plan.noise is not None:
        device.tally.count("plan_unknown")
        return None
    if not await device.trust.stands_by(plan.model, plan.plan, digest):
        device.tally.count("plan_unsigned")
        return None
    return plan


def class_means(features: int, classes: int) -> Floats:
    """What the embeddings of each class have in common [classes, features]: none is below 0, as
    after a ReLU."""
    random = np.random.default_rng(SAME_FOR_ALL)
    return np.maximum(random.normal(0, APART, (classes, features)), 0)


def _sums(embeddings: Floats, classes: Classes, plan: TrainingPlan) -> Statistics:
    longest = float(plan.clip)
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    rows = with_ones(embeddings * np.minimum(1, longest / np.maximum(norms, 1e-30)))
    return Statistics(rows.T @ rows, rows.T @ np.eye(plan.classes)[classes])
