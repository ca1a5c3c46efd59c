"""Gather the labelled examples that a training plan is about into one file for the child."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Sequence
from pathlib import Path

from pilotwave_agent.live.labels import ENDING, SOURCE
from pilotwave_agent.runtimes.base import Array
from pilotwave_agent.runtimes.casefile import BadCases, as_safetensors, read_about, read_tensors
from pilotwave_agent.take_part.device import CannotTakePart
from pilotwave_protocol.learning.decline import Why
from pilotwave_protocol.learning.plan import TrainingPlan


def gather(folder: Path, to: Path, plan: TrainingPlan) -> int:
    """Write the newest examples as one file; return how many. Raises `CannotTakePart`."""
    most, sources = plan.most_examples, plan.label_sources
    found = list(newest(folder, classes=plan.classes, most=most, sources=sources).values())
    if len(found) < plan.least_examples:
        whose = f" from {' or '.join(plan.label_sources)}" if plan.label_sources else ""
        raise CannotTakePart(
            f"plan {plan.plan} asks for {plan.least_examples} labelled examples{whose}; here are"
            f" {len(found)}",
            Why.TOO_FEW_EXAMPLES,
            len(found),
        )
    write_examples(found, to)
    return len(found)


def newest(
    folder: Path, *, classes: int, most: int, sources: Collection[str] = (), until: str = ""
) -> dict[str, dict[str, Array]]:
    """Return at most so many examples by file name, the newest first: those of the shapes that the
    newest one has, and whose labels come from one of `sources`, if there are any. With `until`, no
    name is greater than that."""
    found: dict[str, dict[str, Array]] = {}
    names = sorted(os.listdir(folder), reverse=True) if folder.is_dir() else []
    for name in names:
        if len(found) == most:
            break
        if until and name > until:
            continue
        with contextlib.suppress(BadCases, OSError):
            counts = not sources or read_about(folder / name).get(SOURCE) in sources
            tensors = read_tensors(folder / name) if name.endswith(ENDING) and counts else {}
            first = next(iter(found.values()), tensors)
            if _is_example(tensors, classes) and _alike(tensors, first):
                found[name] = tensors
    return found


def write_examples(found: Sequence[dict[str, Array]], to: Path) -> None:
    """Write examples as one file, a row for each."""
    import numpy as np

    joined = {"label": np.concatenate([tensors["label"] for tensors in found])}
    for name, first in found[0].items():
        if name != "label":
            join = np.concatenate if first.shape[:1] == (1,) else np.stack
            joined[name.removeprefix("input.")] = join([tensors[name] for tensors in found])
    to.write_bytes(as_safetensors(joined))


def _is_example(tensors: dict[str, Array], classes: int) -> bool:
    label = tensors.get("label")
    if label is None or label.shape != (1,) or label.dtype.kind not in "iu" or len(tensors) < 2:
        return False
    return 0 <= int(label[0]) < classes


def _alike(one: dict[str, Array], other: dict[str, Array]) -> bool:
    shapes = [{n: (a.shape, a.dtype) for n, a in tensors.items()} for tensors in (one, other)]
    return shapes[0] == shapes[1]
