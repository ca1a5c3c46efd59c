"""Digits as devices meet them in the field, which are worse than the factory's, and applications
that read them all the time."""

from __future__ import annotations

import threading
from collections import Counter
from functools import cache
from pathlib import Path
from queue import Empty, SimpleQueue

import numpy as np
from safetensors.numpy import load_file

from examples.digits.train import CLASSES, LEVELS, fit
from pilotwave_agent.live import LiveModel
from tests.protocol.learning.models import classifier

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
PER_SECOND = 10
PARTS = {
    "factory": slice(0, 150),
    "own": slice(150, 270),
    "unseen": slice(270, 400),
    "use": slice(400, 480),
    "labelled": slice(480, None),
}
"""Of the images: none is in two of the parts."""


@cache
def images(part: str) -> tuple[np.ndarray, np.ndarray]:
    """Clean images [N, 64] of a part in 0 to LEVELS, and what they show."""
    held = load_file(DIGITS / "held_out.safetensors")
    order = np.random.default_rng(0).permutation(len(held["label"]))[PARTS[part]]
    return held["clean"][order], held["label"][order].astype(np.int64)


def factory_model() -> bytes:
    """A network that has seen few images, all of them clean."""
    net = fit(images("factory"), hidden=64, epochs=150, seed=11, rate=0.05, noisy=False)
    return classifier((net.w1, net.b1), np.vstack([net.w2, net.b2]))


def in_field(part: str, rows: int, seed: int, mix: np.ndarray | None = None) -> tuple[
    np.ndarray, np.ndarray
]:  # fmt: skip
    """So many looks at images of a part, each shifted, darker and noisy; `mix` has the share of
    each class."""
    random = np.random.default_rng(seed)
    clean, labels = images(part)
    weights = np.ones(len(labels)) if mix is None else mix[labels]
    drawn = random.choice(len(labels), rows, p=weights / weights.sum())
    shifted = np.roll(clean[drawn].reshape(-1, 8, 8), 1, axis=2).reshape(rows, -1) / LEVELS
    dark = shifted * random.uniform(0.5, 1, (rows, 1))
    seen = np.clip(dark + random.normal(0, 0.1, dark.shape), 0, 1)
    return seen.astype(np.float32), labels[drawn]


def own_mix(seed: int) -> np.ndarray:
    """The classes that one device meets: some more, some less, none never."""
    return np.random.default_rng(seed).dirichlet([1.0] * CLASSES) + 0.1


class Application(threading.Thread):
    """Reads digits on one device without pause; counts the right answers of each version."""

    def __init__(self, data: Path, seed: int) -> None:
        super().__init__(daemon=True)
        self.answers, self.right = Counter[str](), Counter[str]()
        self.embeddings: list[np.ndarray] = []
        self.errors: list[str] = []
        self._data, self._seed = data, seed
        self._to_label: SimpleQueue[tuple[np.ndarray, int]] = SimpleQueue()
        self._stop_ = threading.Event()

    def label(self, x: np.ndarray, classes: np.ndarray) -> None:
        """Meet these too, and be told what they are."""
        for row, one in zip(x, classes, strict=True):
            self._to_label.put((row, int(one)))

    def accuracy(self, version: str) -> float:
        """The share of a version's answers that were right."""
        return self.right[version] / self.answers[version]

    def run(self) -> None:
        try:
            with LiveModel("detector", data=self._data, app="reader", wait_s=60) as model:
                while not self._stop_.wait(1 / PER_SECOND):
                    self._read(model)
        except Exception as error:
            self.errors.append(repr(error))

    def _read(self, model: LiveModel) -> None:
        self._seed += 1
        x, labels = in_field("use", 1, self._seed)
        answer = model.run({"x": x})
        self.right[answer.version.version] += bool(answer["probs"].argmax() == labels[0])
        self.answers[answer.version.version] += 1
        try:
            while True:
                row, known = self._to_label.get_nowait()
                answer = model.run({"x": row[None]})
                if not model.label(answer, known):
                    self.errors.append("no example was kept")
                self.embeddings.append(answer["active"][0])
        except Empty:
            return

    def close(self) -> None:
        """Stop reading."""
        self._stop_.set()
        self.join(30)
