"""Make a reference of what a variant answered, and of what an application observes. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pilotwave_cli.errors import CliError
from pilotwave_cli.optimize.layout import Array
from pilotwave_protocol.names import check_metric
from pilotwave_protocol.reference import (
    MAX_CLASSES,
    MAX_NUMBERS,
    MIN_INPUTS,
    Confidence,
    Edges,
    Reference,
    outside_of,
    top_probabilities,
)

SCORE = "score"
_QUANTILE = 0.1
_EDGES = 0.01, 0.99
_SUMS_TO_ONE = 0.01


def make_reference(
    output: str | None, answers: Array | None, observed: Mapping[str, Array]
) -> Reference:
    """Return the reference. `answers` are those of `output`, by class; `observed` are the
    application's numbers, of which `score` stands for the confidence. Raises `CliError`."""
    arrays = [*observed.values(), *([] if answers is None else [answers])]
    inputs = min((len(a) for a in arrays), default=0)
    if inputs < MIN_INPUTS:
        raise CliError(f"expected {MIN_INPUTS} inputs or more for a reference; got {inputs}")
    numbers = {name: _edges(name, a) for name, a in observed.items() if name != SCORE}
    if len(numbers) > MAX_NUMBERS:
        raise CliError(f"expected at most {MAX_NUMBERS} observed numbers; got {len(numbers)}")
    return Reference(
        inputs=inputs,
        confidence=_confidence(output, answers, observed.get(SCORE)),
        classes=() if answers is None else _classes(answers),
        numbers=numbers,
    )


def _confidence(
    output: str | None, answers: Array | None, scores: Array | None
) -> Confidence | None:
    if scores is not None:
        return Confidence(*_quantile(_checked(SCORE, scores)))
    if answers is None or output is None or answers.dtype.kind != "f":
        return None
    sums = np.abs(answers.sum(axis=1) - 1)
    logits = bool((answers < -_SUMS_TO_ONE).any() or (sums > _SUMS_TO_ONE).any())
    found = _quantile(top_probabilities(answers, logits=logits))
    return Confidence(*found, output=output, logits=logits)


def _quantile(values: NDArray[np.float64]) -> tuple[float, int]:
    below = float(np.quantile(values, _QUANTILE, method="lower"))
    return below, int((values < below).sum())


def _classes(answers: Array) -> tuple[int, ...]:
    count = answers.shape[1]
    if count > MAX_CLASSES:
        return ()
    return tuple(np.bincount(answers.argmax(axis=1), minlength=count).tolist())


def _edges(name: str, values: Array) -> Edges:
    check_metric(outside_of(name))
    found = _checked(name, values)
    low, high = (float(np.quantile(found, q, method="nearest")) for q in _EDGES)
    return Edges(low, high, int(((found < low) | (found > high)).sum()))


def _checked(name: str, values: Array) -> NDArray[np.float64]:
    if values.ndim != 1 or values.dtype.kind not in "fiu" or not np.isfinite(values).all():
        raise CliError(
            f"{name}: expected one finite number for each input; got {values.dtype} "
            f"{list(values.shape)}"
        )
    return values.astype(np.float64)
