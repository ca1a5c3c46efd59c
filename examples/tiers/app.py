"""An application with two tiers: the digits model on the device, a better one at the site.

    python examples/tiers/app.py labelled small.npz   # inputs with their classes, for `calibrate`
    python examples/tiers/app.py run device           # the agent's data folder

It looks at images as a poor camera sees them and says who answered how many, and how well.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from pilotwave_agent.live.tiers import Tiered

HELD_OUT = Path(__file__).resolve().parent.parent / "digits" / "held_out.safetensors"


def images() -> tuple[np.ndarray, np.ndarray]:
    held = load_file(HELD_OUT)
    return held["in_use"].astype(np.float32) / 16, held["label"].astype(np.int64)


def labelled(path: str) -> None:
    """Write the first half for `pilotwave calibrate`; the second is what the application sees."""
    x, labels = images()
    np.savez(path, x=x[: len(x) // 2], labels=labels[: len(x) // 2])


def run(data: str) -> None:
    x, labels = images()
    answered, right = Counter[str](), Counter[str]()
    with Tiered("detector", data=data, wait_s=30.0) as model:
        for image, label in zip(x[len(x) // 2 :], labels[len(x) // 2 :], strict=True):
            answer = model.predict(image[None])
            answered[answer.tier] += 1
            right[answer.tier] += bool(answer["probs"].argmax() == label)
            right["the small model alone"] += bool(answer.device["probs"].argmax() == label)
    for tier, count in sorted(answered.items()):
        print(f"{tier}: {right[tier]} of {count} right")
    total = sum(answered.values())
    both = sum(right[tier] for tier in answered)
    print(f"both: {both / total:.1%} right; alone: {right['the small model alone'] / total:.1%}")
    if model.trouble:
        print(f"last trouble: {model.trouble}")


if __name__ == "__main__":
    {"labelled": labelled, "run": run}[sys.argv[1]](sys.argv[2])
