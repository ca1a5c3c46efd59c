"""The digits models as two tiers: what the publisher signs, what the owner allows, and images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from pilotwave_agent.live.tier_rules import TierRules
from pilotwave_protocol.escalate import EscalateBudget, Escalation, Promise, Target
from tests.peers.shelf import Shelf

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
SAID = Escalation(
    rule="margin",
    output="probs",
    softmax=False,
    threshold="0.4",
    promise=Promise("0.02", "0.1", 500),
    to=(Target("site", "detector-big", "1.1.0"),),
    encode="fp32",
    budget=EscalateBudget("1", 10**9),
    timeout_ms=1000,
)


def images() -> tuple[np.ndarray, np.ndarray]:
    """Images as a poor camera sees them, one in each row, and what they show."""
    held = load_file(DIGITS / "held_out.safetensors")
    return held["in_use"].astype(np.float32)[:, None, :] / 16, held["label"].astype(int)


def serve(shelf: Shelf, said: Escalation | None = SAID, number: int = 0) -> None:
    """Make a version with the small model current."""
    files = {"model.onnx": (DIGITS / "1.0.0" / "model.onnx").read_bytes()}
    if said is not None:
        files["escalate.json"] = said.to_bytes()
    shelf.switch(shelf.add_files(number, files))


def allow(shelf: Shelf, site: str, pin: str = "", cloud: str = "never") -> None:
    """Write what the agent tells applications of the owner's settings."""
    shelf.layout.tier_rules.write_bytes(TierRules(site, pin, cloud).to_bytes())
