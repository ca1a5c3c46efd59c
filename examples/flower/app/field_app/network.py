"""The network of `examples/digits` and its training, of numpy alone.

It is written down once more because an app of Flower brings all its code to the nodes with it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float32]
Weights = Mapping[str, Numbers]
CLASSES, BATCH, EPOCHS, RATE = 10, 16, 20, 0.02


def train(weights: Weights, x: Numbers, labels: NDArray[np.int64]) -> dict[str, Numbers]:
    """Return the weights after some rounds over images [n, 64] and their classes [n]."""
    random = np.random.default_rng(len(x))
    target = np.eye(CLASSES, dtype=np.float32)[labels]
    found = {name: array.astype(np.float32) for name, array in weights.items()}
    speed = {name: np.zeros_like(array) for name, array in found.items()}
    for _ in range(EPOCHS):
        order = random.permutation(len(x))
        for rows in (order[at : at + BATCH] for at in range(0, len(x), BATCH)):
            for name, slope in gradient(found, x[rows], target[rows]).items():
                speed[name] = 0.9 * speed[name] - RATE * slope
                found[name] = found[name] + speed[name]
    return found


def gradient(w: Weights, x: Numbers, target: Numbers) -> dict[str, Numbers]:
    """Return the slope of the mean cross-entropy by each weight."""
    hidden = np.maximum(x @ w["w1"] + w["b1"], 0)
    z = hidden @ w["w2"] + w["b2"]
    e = np.exp(z - z.max(axis=1, keepdims=True))
    dz = (e / e.sum(axis=1, keepdims=True) - target) / len(x)
    dh = (dz @ w["w2"].T) * (hidden > 0)
    return {"w1": x.T @ dh, "b1": dh.sum(axis=0), "w2": hidden.T @ dz, "b2": dz.sum(axis=0)}
