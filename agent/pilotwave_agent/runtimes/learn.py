"""Run a model on labelled examples and work out what a training plan asks for, in the child."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pilotwave_agent.learning.compute import Batch, ridge_update, sgd_update, with_noise
from pilotwave_agent.runtimes.base import Runner
from pilotwave_agent.runtimes.casefile import read_tensors
from pilotwave_agent.runtimes.golden import Cases, Failed, feeds_of
from pilotwave_protocol.learning.plan import Method, TrainingPlan, parse_plan
from pilotwave_protocol.learning.statistics import Floats, read_head, write_numbers
from pilotwave_protocol.states import Reason
from pilotwave_protocol.tensortypes import NUMBERS

AT_A_TIME = 64


def learn(
    model: Runner, examples: Path, plan: bytes, head: Path | None, folder: Path
) -> dict[str, Any]:
    """Write the numbers of an update into `folder`; return of how many examples they are.

    `examples` holds each input with one row an example, and `label`; `head` the one that `sgd`
    goes on from. Raises `Failed`, `ValueError`, `BadMessage`.
    """
    asked = parse_plan(plan)
    batches = _batches(model, examples, asked)
    if asked.method is Method.SGD:
        assert head is not None
        before = read_head(head.read_bytes(), features=asked.features, classes=asked.classes)
        change, count = sgd_update(before, batches, asked)
        numbers: Floats = change.ravel()
    else:
        found = ridge_update(batches, asked)
        numbers, count = found.numbers(), int(found.examples)
    (folder / NUMBERS).write_bytes(write_numbers(with_noise(numbers, asked)))
    return {"examples": count}


def _batches(model: Runner, path: Path, plan: TrainingPlan) -> Iterator[Batch]:
    given = read_tensors(path)
    labels = np.asarray(given.pop("label"), np.int64)
    waiting: list[Floats] = []
    done = 0
    for feeds, part in feeds_of(Cases(given, {}), list(model.inputs)):
        answer = model.run(feeds)
        if plan.embedding not in answer:
            words = f"the model answers {', '.join(answer)}; the plan asks for {plan.embedding}"
            raise Failed(Reason.SELFTEST_SCHEMA, words)
        rows = np.asarray(answer[plan.embedding], np.float64).reshape(-1, plan.features)
        waiting.append(rows[: part.stop - part.start])
        # some at a time: each addition of the sums costs as much as all of their rows
        if part.stop - done >= AT_A_TIME or part.stop == len(labels):
            yield np.concatenate(waiting), labels[done : part.stop]
            waiting, done = [], part.stop
