"""Hold a loaded model against its manifest and its golden cases."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilotwave_agent.runtimes.base import Array, Runner, Tensor, zeros
from pilotwave_protocol.states import Reason

_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BOOL": "?", "I64": "<i8", "I32": "<i4",
    "I16": "<i2", "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1",
}  # fmt: skip
_REPEATS = 20
_REPEAT_S = 1.0


class Failed(Exception):
    """The model is not what its manifest says."""

    def __init__(self, reason: Reason, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


@dataclass(frozen=True)
class Cases:
    """Golden inputs and outputs by tensor name, the first axis counting the cases."""

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]

    @property
    def count(self) -> int:
        """How many cases there are."""
        return min(len(a) for a in self.inputs.values())


def read_cases(path: Path) -> Cases:
    """Read `input.<name>` and `output.<name>` from a safetensors file."""
    found = _read_safetensors(path)
    cases = Cases(_with_prefix(found, "input."), _with_prefix(found, "output."))
    known = len(cases.inputs) + len(cases.outputs)
    if not cases.inputs or not cases.outputs or known != len(found):
        sentence = f"{path.name}: expected tensors input.<name> and output.<name> only"
        raise Failed(Reason.SELFTEST_SCHEMA, sentence)
    if len({len(a) if a.ndim else 0 for a in found.values()}) != 1:
        raise Failed(Reason.SELFTEST_SCHEMA, f"{path.name}: the tensors differ in their cases")
    return cases


def _read_safetensors(path: Path) -> dict[str, Array]:
    """Read all tensors: eight bytes of size, a JSON header, then the numbers.

    Read here and not by the package of that name, as the interpreter of an old runtime has none.
    https://huggingface.co/docs/safetensors/index#format
    """
    raw = path.read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    try:
        header = json.loads(raw[8:start])
        header.pop("__metadata__", None)
        return {name: _tensor(raw, start, entry) for name, entry in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        sentence = f"{path.name}: expected golden cases as safetensors: {e}"
        raise Failed(Reason.SELFTEST_SCHEMA, sentence) from e


def _tensor(raw: bytes, start: int, entry: Mapping[str, Any]) -> Array:
    first, last = entry["data_offsets"]
    if not 0 <= first <= last <= len(raw) - start:
        raise ValueError("a tensor lies outside the file")
    flat = np.frombuffer(raw[start + first : start + last], _DTYPES[entry["dtype"]])
    # reshaped copies: what a runtime is given has to be its own to write to
    return flat.reshape(entry["shape"]).copy()


def _with_prefix(found: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    return {n.removeprefix(prefix): a for n, a in found.items() if n.startswith(prefix)}


def check_schema(kind: str, declared: list[dict[str, Any]], found: list[Tensor]) -> None:
    """Compare declared inputs or outputs (`kind`) with what the model has."""
    have = {t.name: t for t in found}
    for spec in declared:
        name, dtype, shape = spec["name"], spec["dtype"], tuple(spec["shape"])
        tensor = have.pop(name, None)
        if tensor is None:
            raise Failed(Reason.SELFTEST_SCHEMA, f"the model has no {kind} {name}")
        if dtype != tensor.dtype:
            sentence = f"{kind} {name}: expected {dtype}; the model has {tensor.dtype}"
            raise Failed(Reason.SELFTEST_SCHEMA, sentence)
        if not _same_shape(shape, tensor.shape):
            have_shape = list(tensor.shape or ())
            sentence = f"{kind} {name}: expected {list(shape)}; the model has {have_shape}"
            raise Failed(Reason.SELFTEST_SCHEMA, sentence)
    if declared and have:
        sentence = f"the model has a further {kind} {next(iter(have))}"
        raise Failed(Reason.SELFTEST_SCHEMA, sentence)


def _same_shape(declared: tuple[int, ...], found: tuple[int, ...] | None) -> bool:
    """A dimension that may vary matches any: runtimes do not always know what a manifest does."""
    if not found or len(declared) != len(found):
        return not found  # some models carry no shape at all
    return all(a == b or -1 in (a, b) for a, b in zip(declared, found, strict=True))


def feeds_of(cases: Cases, inputs: list[Tensor]) -> Iterator[tuple[dict[str, Array], slice]]:
    """Yield each call's inputs and which cases it answers.

    The cases' axis is the model's batch axis where the ranks agree; a fixed batch takes as many
    cases at once.
    """
    missing = {t.name for t in inputs} ^ cases.inputs.keys()
    if missing:
        raise Failed(Reason.SELFTEST_SCHEMA, f"cases and model disagree on input {min(missing)}")
    known = {t.name: t.shape for t in inputs if t.shape is not None}
    batched = all(cases.inputs[name].ndim == len(shape) for name, shape in known.items())
    sizes = [shape[0] for shape in known.values() if shape]
    step = max([1, *sizes]) if batched else 1
    for start in range(0, cases.count - step + 1, step):
        part = slice(start, start + step)
        at = part if batched else start
        yield {name: a[at] for name, a in cases.inputs.items()}, part


@dataclass
class Figures:
    """What was measured; `agreement` is the share of cases with the expected largest output."""

    cases: int = 0
    worst: float = 0.0
    agreement: float | None = None
    p50_ms: float = 0.0
    p95_ms: float = 0.0


def run_cases(
    model: Runner, cases: Cases, *, atol: float, rtol: float, compare: Callable[[], None]
) -> Figures:
    """Run every case and compare; `compare` is called before the first comparison."""
    figures, agree, times = Figures(), [], []
    calls = list(feeds_of(cases, list(model.inputs)))
    answers = []
    for feeds, part in calls:
        begun = time.perf_counter()
        answers.append((model.run(feeds), part))
        times.append(time.perf_counter() - begun)
    compare()
    wrong = 0
    for got, part in answers:
        bad = np.zeros(part.stop - part.start, bool)
        for name, expected in cases.outputs.items():
            wanted = expected[part]
            found = _output(got, name, wanted)
            difference, differ = _compare(name, found, wanted, atol, rtol)
            figures.worst, bad = max(figures.worst, difference), bad | differ
            if wanted.ndim == 2 and wanted.shape[1] > 1:
                agree += list(found.argmax(1) == wanted.argmax(1))
        figures.cases += len(bad)
        wrong += int(bad.sum())
    if wrong:
        sentence = f"{wrong} of {figures.cases} golden cases differ, by up to {figures.worst:.4g}"
        raise Failed(Reason.SELFTEST_MISMATCH, sentence)
    figures.agreement = float(np.mean(agree)) if agree else None
    repeated = _repeat(model, calls[0][0]) if calls else []
    _time(figures, repeated if hasattr(model, "times") else times + repeated)
    return figures


def _output(got: Mapping[str, Array], name: str, wanted: Array) -> Array:
    if name not in got:
        raise Failed(Reason.SELFTEST_SCHEMA, f"the model has no output {name}")
    found = np.asarray(got[name])
    if found.shape == wanted.shape[1:] and len(wanted) == 1:
        found = found[np.newaxis]
    if found.shape != wanted.shape:
        sentence = f"output {name}: expected shape {list(wanted.shape)}; got {list(found.shape)}"
        raise Failed(Reason.SELFTEST_SCHEMA, sentence)
    return found


def _compare(
    name: str, found: Array, wanted: Array, atol: float, rtol: float
) -> tuple[float, NDArray[np.bool_]]:
    """Return the largest difference, and for each case whether it is beyond the tolerance."""
    _check_finite(name, found)
    expected = wanted.astype(np.float64)
    difference = np.abs(found.astype(np.float64) - expected)
    # so put, a case whose expected output is NaN never passes
    within = difference <= atol + rtol * np.abs(expected)
    differ = np.asarray(~within.reshape(len(wanted), -1).all(axis=1))
    return float(np.nan_to_num(difference, nan=np.inf).max(initial=0.0)), differ


def _check_finite(name: str, found: Array) -> None:
    if found.dtype.kind in "fc" and not np.isfinite(found).all():
        raise Failed(Reason.SELFTEST_NONFINITE, f"output {name} holds NaN or infinity")


def run_zeros(model: Runner) -> Figures:
    """Without golden cases: one input of zeros must give finite outputs."""
    feeds = {t.name: zeros(t) for t in model.inputs}
    for name, found in model.run(feeds).items():
        _check_finite(name, np.asarray(found))
    figures = Figures()
    _time(figures, _repeat(model, feeds))
    return figures


def _repeat(model: Runner, feeds: Mapping[str, Array]) -> list[float]:
    times: list[float] = []
    while len(times) < _REPEATS and sum(times) < _REPEAT_S:
        begun = time.perf_counter()
        model.run(feeds)
        times.append(time.perf_counter() - begun)
    # a runtime that is called as a program measures the inference without its own start
    return list(getattr(model, "times", [])) or times


def _time(figures: Figures, times: list[float]) -> None:
    # the first call pays for what later ones find ready
    steady = np.array(times[1:] or times) * 1000
    if steady.size:
        figures.p50_ms = float(np.percentile(steady, 50))
        figures.p95_ms = float(np.percentile(steady, 95))
