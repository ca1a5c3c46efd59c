"""A version that is good at the factory and poor in the field, where everything leans to class 0.

`x` [N, 8] to `active` [N, 48] and `probs` [N, 3]. It has about .55 of the field's inputs right; a
head of the device's own has nearly all, and keeps the factory's.
"""

from __future__ import annotations

import numpy as np

from pilotwave_agent.runtimes.casefile import as_safetensors
from pilotwave_protocol.learning.statistics import Statistics, with_ones
from tests.protocol.learning.models import classifier

INPUTS, FEATURES, CLASSES = 8, 48, 3
_RANDOM = np.random.default_rng(5)
HIDDEN = (
    _RANDOM.normal(size=(INPUTS, FEATURES)) / 2,
    _RANDOM.normal(size=FEATURES) / 2,
)


def seen(rows: int, seed: int, *, field: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and their classes."""
    random = np.random.default_rng(seed)
    classes = random.integers(0, CLASSES, rows)
    x = np.eye(INPUTS)[classes] * 2 + random.normal(0, 0.4, (rows, INPUTS))
    x[:, 0] += 2.5 * field
    return x.astype(np.float32), classes


def embedded(x: np.ndarray) -> np.ndarray:
    """The embedding."""
    return np.maximum(x @ HIDDEN[0] + HIDDEN[1], 0)


def head() -> np.ndarray:
    """The factory's last layer."""
    x, y = seen(400, 1, field=False)
    rows = with_ones(embedded(x))
    return Statistics(rows.T @ rows, rows.T @ np.eye(CLASSES)[y]).head(1.0) * 5


def scored(x: np.ndarray) -> np.ndarray:
    """The factory's probabilities."""
    exp = np.exp(with_ones(embedded(x)) @ head())
    return exp / exp.sum(axis=1, keepdims=True)


def factory_model() -> bytes:
    """The version's file."""
    return classifier(HIDDEN, head())


def golden_cases(rows: int = 40) -> bytes:
    """Golden cases of the factory, as safetensors."""
    x, _ = seen(rows, 7, field=False)
    arrays = {"input.x": x, "output.active": embedded(x), "output.probs": scored(x)}
    return as_safetensors({name: array.astype(np.float32) for name, array in arrays.items()})
