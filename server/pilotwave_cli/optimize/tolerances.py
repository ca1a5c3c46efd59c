"""Choose a variant's golden cases, and how near another machine's answers must come.

A tolerance belongs to the variant: its cases hold its own answers on this machine's runtime. On
another processor the same 8-bit file may round otherwise, by as much as quantising itself did; so
8-bit variants are held to their largest output too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pilotwave_cli.optimize.answers import Answers
from pilotwave_cli.optimize.layout import Array

_CASES = 64
_FEWEST = 8
_CASES_BYTES = 4 << 20
_NEAR = 1e-3
_MAY_DIFFER = 0.05


@dataclass(frozen=True)
class Golden:
    """Which rows and outputs are golden cases; decimal texts of what is allowed."""

    rows: Sequence[int]
    outputs: Sequence[str]
    atol: str
    rtol: str
    min_agreement: str | None


def golden_of(answers: Answers, source: Answers, judged: str, precision: str) -> Golden:
    """Choose the cases of a variant whose output `judged` tells the class."""
    full = precision == "fp32"
    rows = _rows(answers, answers.outputs[judged])
    floats = [n for n, a in answers.outputs.items() if a.dtype.kind == "f"]
    outputs = list(answers.outputs) if full or not floats else floats
    scale = max((_largest(answers.outputs[n][rows]) for n in floats), default=1.0)
    apart = max(
        (_apart(answers.outputs[n][rows], a[rows]) for n, a in _same(answers, source).items()),
        default=0.0,
    )
    near = _NEAR * (min(scale, 1.0) if full else scale)
    return Golden(
        rows=rows,
        outputs=outputs,
        atol=_rounded_up(max(near, apart, 2 * answers.apart, 1e-9)),
        rtol="0.001",
        min_agreement=None if full else _agreement(len(rows)),
    )


def _rows(answers: Answers, told: Array) -> list[int]:
    """Spread over the data, of the surer half: a near tie falls either way on another machine and
    tells nothing of it."""
    row_bytes = sum(a[:1].nbytes for a in answers.inputs.values())
    count = min(_CASES, max(_CASES_BYTES // max(row_bytes, 1), _FEWEST))
    ordered = np.sort(told.astype(np.float64), axis=1)
    margins = ordered[:, -1] - ordered[:, -2]
    sure = np.flatnonzero(margins >= np.median(margins))
    spread = np.linspace(0, len(sure) - 1, min(count, len(sure))).astype(int)
    return [int(row) for row in sure[spread]]


def _agreement(cases: int) -> str:
    differ = max(1, math.floor(cases * _MAY_DIFFER))
    return f"{math.floor((cases - differ) / cases * 100) / 100:g}"


def _same(answers: Answers, source: Answers) -> Mapping[str, Array]:
    """The source's outputs that can be compared, by the variant's names."""
    same = answers.outputs.keys() == source.outputs.keys()
    pairs = zip(answers.outputs, answers.outputs if same else source.outputs, strict=False)
    return {
        mine: source.outputs[theirs]
        for mine, theirs in pairs
        if answers.outputs[mine].shape == source.outputs[theirs].shape
        and answers.outputs[mine].dtype.kind == "f"
    }


def _largest(array: Array) -> float:
    return float(np.abs(array).max(initial=0.0))


def _apart(mine: Array, theirs: Array) -> float:
    return _largest(mine.astype(np.float64) - theirs.astype(np.float64))


def _rounded_up(number: float) -> str:
    """Two digits, so that what is signed is what people read."""
    step = 10.0 ** (math.floor(math.log10(number)) - 1)
    return f"{math.ceil(number / step - 1e-9) * step:.2g}"
