"""A plan whose updates take several pieces, and updates for it."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np

from pilotwave_agent.learning.compute import ridge_update
from pilotwave_protocol import dsse
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.learning.examples import write_examples
from pilotwave_protocol.learning.plan import TrainingPlan, Validation
from pilotwave_protocol.learning.update import UPDATE_TYPE, Piece, Update, join_piece
from tests.server.device_api.peer import FLEET, SimulatedDevice
from tests.server.learning.test_rounds import plan_of
from tests.server.registry.registry import Registry

FEATURES = 300


def examples(rows: int, seed: int, features: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.normal(0, 1 / features**0.5, (rows, features)), random.integers(0, 3, rows)


def wide_plan(registry: Registry, features: int = FEATURES, **changes: Any) -> TrainingPlan:
    file = write_examples(*examples(50, 999, features))
    own = Validation(registry.blobs.put(file), len(file), 50)
    return plan_of(registry, features=features, validation=own, **changes)


def signed(
    asked: TrainingPlan, cam: SimulatedDevice, seed: int = 0, /, **changes: Any
) -> tuple[bytes, bytes]:
    """The envelope of an update, and its numbers."""
    numbers = ridge_update([examples(40, seed, asked.features)], asked).to_bytes()
    given = {
        "fleet": FLEET, "device": cam.name, "model": "detector", "round": 1, "examples": 40,
        "plan": sha256_hex(asked.to_bytes()), "numbers": sha256_hex(numbers), "size": len(numbers),
    }  # fmt: skip
    statement = Update(**{**given, **changes}).to_bytes()
    return dsse.sign(UPDATE_TYPE, statement, cam.key), numbers


def post(cam: SimulatedDevice, path: str, raw: bytes) -> httpx.Response:
    given = {"Authorization": f"Bearer {cam.token}", "Content-Type": "application/octet-stream"}
    return cam.http.post(f"/device/v1/updates{path}", content=raw, headers=given)


def begin(cam: SimulatedDevice, envelope: bytes) -> httpx.Response:
    return post(cam, "/begin", envelope)


def piece(cam: SimulatedDevice, numbers: bytes, offset: int, content: bytes) -> httpx.Response:
    raw = join_piece(Piece(sha256_hex(numbers), offset, content))
    return post(cam, "/pieces", raw)
