"""Drift: how often quiet inputs raise an alarm, and after how many other inputs one comes.

The confidences are those of the digits example's versions, run by ONNX Runtime on its 699 held-out
images as they are, and as a camera in trouble would send them. Streams are drawn from them with
replacement. Each stream has a reference of its own, drawn likewise (500 inputs), as a finite
reference is what makes an honest test cry wolf; and it is judged input by input, by the agent's own
code. Quiet streams are 20,000 inputs long; a drift begins after 2,000 quiet inputs.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
from _bench import DIGITS, Bench, main
from numpy.typing import NDArray
from safetensors.numpy import load_file

from pilotwave_agent.core.drift import Evidence
from pilotwave_cli.reference.make_reference import make_reference
from pilotwave_protocol.reference import LOW_CONFIDENCE, top_probabilities

INPUTS, QUIET, LONGEST = 500, 2_000, 20_000
FALSE_ALARMS = 0.01
Images = NDArray[np.float32]
Change = Callable[[Images], Images]
_NOISE = np.random.default_rng(7)


def noisy(by: float) -> Change:
    """Return a change that adds noise."""
    return lambda x: np.clip(x + _NOISE.normal(0, by, x.shape), 0, 1).astype(np.float32)


def shifted(x: Images) -> Images:
    """Move each image a pixel to the right, an eighth of its width."""
    return np.roll(x.reshape(-1, 8, 8), 1, axis=2).reshape(x.shape)


def blurred(x: Images) -> Images:
    """Mix each row with its neighbours, as a moving camera does."""
    rows = x.reshape(-1, 8, 8)
    mixed = (rows + np.roll(rows, 1, axis=1) + np.roll(rows, -1, axis=1)) / 3
    return mixed.astype(np.float32).reshape(x.shape)


CHANGES: dict[str, Change] = {
    "darker by half": lambda x: x * np.float32(0.5),
    "noise of 0.3": noisy(0.3),
    "noise of 0.15": noisy(0.15),
    "shifted by a pixel": shifted,
    "blurred": blurred,
}


@dataclass(frozen=True)
class World:
    """What a version answers to images of one kind: scores of classes, and the share right."""

    scores: NDArray[np.float32]
    right: float

    @property
    def confidences(self) -> list[float]:
        """Each image's top probability."""
        found: list[float] = top_probabilities(self.scores, logits=False).tolist()
        return found


def run(version: str) -> tuple[World, dict[str, World]]:
    """Run a version on the images as they are, and on each kind of other ones."""
    held_out = load_file(DIGITS / "held_out.safetensors")
    session = ort.InferenceSession(str(DIGITS / version / "model.onnx"))

    def world(images: Images) -> World:
        (scores,) = session.run(None, {"x": images})
        return World(scores, float((scores.argmax(axis=1) == held_out["label"]).mean()))

    clean = held_out["clean"].astype(np.float32) / 16
    others = {name: world(change(clean)) for name, change in CHANGES.items()}
    others["a poor camera"] = world(held_out["in_use"].astype(np.float32) / 16)
    return world(clean), others


class Stream:
    """One device: a reference of its own, and inputs that are drawn one by one."""

    def __init__(self, quiet: World, seed: int) -> None:
        self._chance = random.Random(seed)
        rows = self._chance.choices(range(len(quiet.scores)), k=INPUTS)
        reference = make_reference("probs", quiet.scores[rows], {})
        assert reference.confidence is not None
        self._below = reference.confidence.below
        self._bound = reference.bound(LOW_CONFIDENCE) or 0.0
        self._evidence = Evidence()

    def alarm_in(self, confidences: Sequence[float], longest: int) -> int | None:
        """Return after how many inputs the alarm came; None where none came."""
        for number, sure in enumerate(self._chance.choices(confidences, k=longest), start=1):
            self._evidence = self._evidence.after(sure < self._below, 1, self._bound)
            if self._evidence.is_drift:
                return number
        return None


def measure(bench: Bench) -> None:
    streams, drifts = (100, 20) if bench.quick else (1_000, 100)
    for version in ("1.1.0",) if bench.quick else ("1.0.0", "1.1.0"):
        quiet, others = run(version)
        bench.say(f"{version}: right on {quiet.right:.1%}; {streams} quiet streams")
        confidences = quiet.confidences
        alarms = sum(
            Stream(quiet, seed).alarm_in(confidences, LONGEST) is not None
            for seed in range(streams)
        )
        share = alarms / streams
        goal = f"at most {FALSE_ALARMS:.0%}"
        bench.figure(f"{version}, false alarms", share, goal, share <= FALSE_ALARMS)
        for name, other in others.items():
            _delays(bench, f"{version}, {name} (right on {other.right:.1%})", quiet, other, drifts)


def _delays(bench: Bench, name: str, quiet: World, other: World, streams: int) -> None:
    before, after = quiet.confidences, other.confidences
    found = []
    for seed in range(streams):
        stream = Stream(quiet, 10_000 + seed)
        stream.alarm_in(before, QUIET)
        found.append(stream.alarm_in(after, LONGEST))
    seen = [delay for delay in found if delay is not None]
    bench.figure(f"{name}: seen in", f"{len(seen)} of {streams}")
    if seen:
        bench.figure(f"{name}: median delay", int(statistics.median(seen)))
        bench.figure(f"{name}: longest delay", max(seen))


if __name__ == "__main__":
    main("drift", measure)
