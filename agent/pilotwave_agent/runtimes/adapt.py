"""Fit a residual head for one device and find out what it does, in the child.

Examples come in order of time. The newest third of those that count is held out: the head is judged
on what came after all that it was made of.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilotwave_agent.learning.judge import HeadFigures, Pairs
from pilotwave_agent.learning.residual import fit
from pilotwave_agent.runtimes.base import Array, Runner
from pilotwave_agent.runtimes.bench import in_turns, percentile_ms
from pilotwave_agent.runtimes.casefile import read_tensors
from pilotwave_agent.runtimes.golden import Cases, Failed, feeds_of, first_call, read_cases
from pilotwave_protocol.learning.device_plan import DevicePlan, parse_device_plan
from pilotwave_protocol.learning.overlaid import overlaid
from pilotwave_protocol.learning.statistics import Floats, read_numbers, write_numbers
from pilotwave_protocol.states import Reason
from pilotwave_protocol.tensortypes import NUMBERS

_HELD_OUT = 3
_REPEAT_S = 1.0


@dataclass(frozen=True)
class AdaptTask:
    """What the child is told: the plan, the numbers of the overlay in use (base64, or none), how
    many of the newest examples came after it, and from which example on they are fitted; with
    `refit` false, the overlay in use is judged and nothing is fitted."""

    plan: str
    last: str
    later: int
    fit_from: int
    refit: bool

    def to_text(self) -> str:
        """Write it for the child."""
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class _Answered:
    """What the model answers: embeddings and scores, a row for each input."""

    embeddings: Floats
    scores: Array

    def part(self, rows: slice) -> _Answered:
        return _Answered(self.embeddings[rows], self.scores[rows])


def adapt(
    model: Runner, examples: Path, task: str, cases: Path | None, folder: Path
) -> dict[str, Any]:
    """Write the numbers of a new head into `folder`, if one was asked for. Returns `judged`, what
    later labels say of the overlay in use, and the `head`'s figures or None."""
    told = AdaptTask(**json.loads(task))
    plan = parse_device_plan(told.plan.encode())
    given = read_tensors(examples)
    labels = np.asarray(given.pop("label"), np.int64)
    found = _answers(model, given, plan)
    last = _head(base64.b64decode(told.last), plan) if told.last else None
    later = slice(len(labels) - told.later, len(labels))
    judged = _pairs(found.part(later), labels[later], plan, last, None)
    if not told.refit:
        return {"judged": asdict(judged), "head": None}
    first = told.fit_from
    held = slice(len(labels) - (len(labels) - first) // _HELD_OUT, len(labels))
    mine = slice(first, held.start)
    head = fit(found.embeddings[mine], found.scores[mine], labels[mine], plan)
    raw = write_numbers(head)
    (folder / NUMBERS).write_bytes(raw)
    numbers = _head(raw, plan)
    golden, rows, finite = _golden(model, cases, plan, numbers)
    unseen = found.part(held)
    figures = HeadFigures(
        examples=mine.stop - mine.start,
        held_out=_pairs(unseen, labels[held], plan, numbers, None),
        beside_last=_pairs(unseen, labels[held], plan, numbers, last),
        golden=golden,
        golden_rows=rows,
        finite=finite and bool(np.isfinite(_with(unseen, plan, numbers)).all()),
        distance=float(np.linalg.norm(numbers)),
        p95_ms=_p95_ms(model, cases, plan, numbers),
    )
    return {"judged": asdict(judged), "head": asdict(figures)}


def _head(raw: bytes, plan: DevicePlan) -> NDArray[np.float32]:
    shape = plan.features + 1, plan.classes
    return read_numbers(raw, shape[0] * shape[1]).reshape(shape).astype(np.float32)


def _answers(model: Runner, given: Mapping[str, Array], plan: DevicePlan) -> _Answered:
    embeddings, scores = [], []
    for feeds, part in feeds_of(Cases(given, {}), list(model.inputs)):
        answer, rows = model.run(feeds), part.stop - part.start
        embeddings.append(_rows(answer, plan.embedding, plan.features)[:rows])
        scores.append(_rows(answer, plan.scores.output, plan.classes)[:rows])
    return _Answered(np.concatenate(embeddings), np.concatenate(scores))


def _rows(answer: Mapping[str, Array], name: str, width: int) -> Array:
    found = np.asarray(answer.get(name))
    if found.ndim != 2 or found.shape[1] != width or found.dtype.kind != "f":
        there = ", ".join(f"{n} {list(np.shape(a))}" for n, a in answer.items())
        words = f"the plan asks for an output {name} of numbers [-1, {width}]; the model answers"
        raise Failed(Reason.SELFTEST_SCHEMA, f"{words} {there}")
    if not np.isfinite(found).all():
        raise Failed(Reason.SELFTEST_NONFINITE, f"output {name} holds NaN or infinity")
    return found


def _with(found: _Answered, plan: DevicePlan, head: NDArray[np.float32] | None) -> Array:
    if head is None:
        return found.scores
    return overlaid(
        head, found.scores, found.embeddings, clip=float(plan.clip), kind=plan.scores.kind
    )


def _pairs(
    found: _Answered,
    labels: NDArray[np.int64],
    plan: DevicePlan,
    new: NDArray[np.float32] | None,
    old: NDArray[np.float32] | None,
) -> Pairs:
    right = [_with(found, plan, head).argmax(axis=1) == labels for head in (new, old)]
    better, worse = right[0] & ~right[1], right[1] & ~right[0]
    return Pairs(int(better.sum()), int(worse.sum()), len(labels))


def _golden(
    model: Runner, path: Path | None, plan: DevicePlan, head: NDArray[np.float32]
) -> tuple[int, int, bool]:
    """Return how many golden cases keep their class, of how many, and whether all is finite."""
    cases = read_cases(path) if path else None
    expected = cases.outputs.get(plan.scores.output) if cases else None
    if cases is None or expected is None or expected.shape[1:] != (plan.classes,):
        return 0, 0, True
    answers = _with(_answers(model, cases.inputs, plan), plan, head)
    kept = answers.argmax(axis=1) == expected.argmax(axis=1)
    return int(kept.sum()), len(kept), bool(np.isfinite(answers).all())


class _Timed:
    """The model with the head, for who times calls."""

    def __init__(self, model: Runner, plan: DevicePlan, head: NDArray[np.float32]) -> None:
        self._model, self._plan, self._head = model, plan, head

    def run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        answer = self._model.run(feeds)
        names = self._plan.embedding, self._plan.scores.output
        found = _Answered(*(np.asarray(answer[name]) for name in names))
        return {**answer, names[1]: _with(found, self._plan, self._head)}


def _p95_ms(model: Runner, path: Path | None, plan: DevicePlan, head: NDArray[np.float32]) -> float:
    feeds = first_call(model, read_cases(path) if path else None)
    timed: Any = _Timed(model, plan, head)
    (times,) = in_turns([(timed, feeds)], within_s=_REPEAT_S)
    return percentile_ms(times.wall, 95)
