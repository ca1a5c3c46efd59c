"""The head that a round goes on from: the first as the publisher signed it, each later one no
further from it than that many rounds can have moved it."""

from __future__ import annotations

import numpy as np

from pilotwave_agent.net import server_api
from pilotwave_agent.take_part.device import CannotTakePart, Device
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.errors import BadMessage
from pilotwave_protocol.learning.noise import longest_head
from pilotwave_protocol.learning.plan import TrainingPlan
from pilotwave_protocol.learning.statistics import read_head


def fetch_head(device: Device, plan: TrainingPlan, digest: str, number: int) -> bytes:
    """Return it as it came. Raises `CannotTakePart`, `ServerSaid`, `Unreachable`, `BadAnswer`."""
    raw = server_api.head_of_round(device.channel, device.token, digest, number, plan.head_bytes)
    what = f"the head of round {number} of plan {plan.plan}"
    if number == 1 and plan.head is not None and sha256_hex(raw) != plan.head.sha256:
        raise CannotTakePart(f"{what} is not the one that was signed")
    try:
        head = read_head(raw, features=plan.features, classes=plan.classes)
    except BadMessage as e:
        raise CannotTakePart(f"{what}: {e}") from e
    length, most = float(np.linalg.norm(head)), longest_head(plan, number)
    if length > most:
        raise CannotTakePart(f"{what}: expected a norm of at most {most:g}; got {length:g}")
    return raw
