"""Run a model on given inputs and write down its answers, as golden cases.

This is the publisher's side of a self-test: the same adapters, the same child process. Each input
is run twice, so that a model whose answers vary is known before devices refuse it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pilotwave_agent.runtimes.base import Array, Runner, Tensor
from pilotwave_agent.runtimes.casefile import as_safetensors, read_tensors
from pilotwave_agent.runtimes.golden import Cases, Failed, feeds_of
from pilotwave_protocol.states import Reason
from pilotwave_protocol.tensortypes import (
    BFLOAT16,
    CASES,
    CASES_FORMAT,
    CASES_JSON,
    STRING,
)


def record(model: Runner, inputs: Path, folder: Path) -> dict[str, Any]:
    """Write `selftest.safetensors`, and `selftest.json` for strings, into `folder`.

    Returns how many cases there are, by how much two runs of one input differed at most, and in how
    many cases an answer is NaN or infinite. Raises `Failed` where the inputs do not fit the model.
    """
    given = read_tensors(inputs)
    _check(given, list(model.inputs))
    calls = list(feeds_of(Cases(given, {}), list(model.inputs)))
    answers: dict[str, list[Array]] = {}
    odd = np.zeros(len(next(iter(given.values()))), bool)
    worst = 0.0
    for feeds, part in calls:
        first, second = model.run(feeds), model.run(feeds)
        for name, found in first.items():
            mine = _of_cases(np.asarray(found), part.stop - part.start, feeds, model)
            again = _of_cases(np.asarray(second[name]), part.stop - part.start, feeds, model)
            worst = max(worst, _apart(mine, again))
            odd[part.start : part.stop] |= _odd(mine)
            answers.setdefault(name, []).append(mine)
    kinds = {f"{kind}.{t.name}": t.dtype for kind, ts in _tensors(model) for t in ts}
    told = {f"input.{name}": array for name, array in given.items()}
    told |= {f"output.{name}": np.concatenate(parts) for name, parts in answers.items()}
    write_cases(folder, told, kinds)
    return {"cases": len(odd), "worst": min(worst, 1e300), "nonfinite": int(odd.sum())}


def _tensors(model: Runner) -> list[tuple[str, list[Tensor]]]:
    return [("input", list(model.inputs)), ("output", list(model.outputs))]


def _check(given: Mapping[str, Array], inputs: list[Tensor]) -> None:
    """`Failed` with what was expected and what came, where they do not fit."""
    known = {t.name: t for t in inputs}
    if given.keys() != known.keys():
        words = f"the model takes {', '.join(known)}; the file has {', '.join(given)}"
        raise Failed(Reason.SELFTEST_SCHEMA, words)
    for name, array in given.items():
        wanted = "float32" if known[name].dtype == BFLOAT16 else known[name].dtype
        kind = STRING if array.dtype == object else str(array.dtype)
        if kind != wanted:
            hint = "" if STRING in (kind, wanted) else f': save it with .astype("{wanted}")'
            words = f"input {name}: expected {wanted}; got {kind}{hint}"
            raise Failed(Reason.SELFTEST_SCHEMA, words)
        if not array.ndim or not len(array):
            raise Failed(Reason.SELFTEST_SCHEMA, f"input {name}: expected one case or more")
    if len({len(array) for array in given.values()}) > 1:
        sizes = ", ".join(f"{name} {len(array)}" for name, array in given.items())
        words = f"expected the same number of cases in each input; got {sizes}"
        raise Failed(Reason.SELFTEST_SCHEMA, words)


def _of_cases(found: Array, count: int, feeds: Mapping[str, Array], model: Runner) -> Array:
    """The answer's part that belongs to these cases, its first axis counting them."""
    shapes = {t.name: t.shape for t in model.inputs}
    batched = all(shapes[n] is None or a.ndim == len(shapes[n] or ()) for n, a in feeds.items())
    sizes = {len(a) for a in feeds.values() if a.ndim}
    if batched and found.ndim and {len(found)} == sizes:
        return found[:count]
    if count == 1:
        return found[np.newaxis]
    words = f"an output of shape {list(found.shape)} does not say which case each part answers"
    raise Failed(Reason.SELFTEST_SCHEMA, f"{words}; give the model one case at a time")


def _odd(answers: Array) -> Array:
    """For each case whether its answer holds NaN or an infinity."""
    if answers.dtype.kind not in "fc":
        return np.zeros(len(answers), bool)
    return np.asarray(~np.isfinite(answers.reshape(len(answers), -1)).all(axis=1))


def _apart(first: Array, second: Array) -> float:
    if first.dtype.kind not in "fc":
        return 0.0 if np.array_equal(first, second) else 1.0
    same = (first == second) | (np.isnan(first) & np.isnan(second))
    finite = np.isfinite(first) & np.isfinite(second)
    if not (same | finite).all():
        return float("inf")
    return float(np.abs(first[finite] - second[finite]).max(initial=0.0))


def write_cases(folder: Path, tensors: Mapping[str, Array], kinds: Mapping[str, str]) -> None:
    """Write the tensors: texts as JSON, everything else as safetensors."""
    texts = {name: a for name, a in tensors.items() if a.dtype == object or a.dtype.kind in "US"}
    rest = {name: a for name, a in tensors.items() if name not in texts}
    if texts:
        entries = {
            name: {"dtype": STRING, "shape": list(a.shape), "data": [str(v) for v in a.reshape(-1)]}
            for name, a in texts.items()
        }
        told = {"format": CASES_FORMAT, "tensors": entries}
        (folder / CASES_JSON).write_text(json.dumps(told, ensure_ascii=False))
    if rest:
        write_safetensors(folder / CASES, rest, kinds)


def write_safetensors(
    path: Path, tensors: Mapping[str, Array], kinds: Mapping[str, str] | None = None
) -> None:
    """Write arrays as safetensors (`casefile.as_safetensors`)."""
    path.write_bytes(as_safetensors(tensors, kinds))
