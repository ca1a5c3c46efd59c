"""Hold a loaded model against its manifest and its golden cases."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilotwave_agent.runtimes.base import Array, Runner, Tensor, zeros
from pilotwave_agent.runtimes.bench import Times, in_turns, percentile_ms
from pilotwave_agent.runtimes.casefile import BadCases, read_tensors
from pilotwave_agent.runtimes.faults import reason_of
from pilotwave_protocol.states import Reason

_REPEAT_S = 1.0
# what a made-up input tells of a model for sure
_REFUSED = (
    Reason.SELFTEST_MEMORY,
    Reason.SELFTEST_TIMEOUT,
    Reason.SELFTEST_OPERATOR,
    Reason.SELFTEST_UNSUPPORTED,
    Reason.RUNTIME_MISSING,
)


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
    """Read tensors `input.<name>` and `output.<name>`, all of the same number of cases."""
    try:
        found = read_tensors(path)
    except BadCases as e:
        raise Failed(Reason.SELFTEST_SCHEMA, f"{path.name}: {e}") from e
    cases = Cases(_with_prefix(found, "input."), _with_prefix(found, "output."))
    known = len(cases.inputs) + len(cases.outputs)
    if not cases.inputs or not cases.outputs or known != len(found):
        sentence = f"{path.name}: expected tensors input.<name> and output.<name> only"
        raise Failed(Reason.SELFTEST_SCHEMA, sentence)
    if len({len(a) if a.ndim else 0 for a in found.values()}) != 1:
        raise Failed(Reason.SELFTEST_SCHEMA, f"{path.name}: the tensors differ in their cases")
    if not all(a.ndim and len(a) for a in found.values()):
        raise Failed(Reason.SELFTEST_SCHEMA, f"{path.name}: expected at least one case; got none")
    return cases


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
    """Yield each call's inputs and which cases it answers; together they are all cases.

    Of an input that has the model's rank, the cases' axis is the model's batch axis; of one with a
    rank more it stands before all of the model's. A fixed batch takes as many cases at once, and
    the last of them again where there are too few.
    """
    missing = {t.name for t in inputs} ^ cases.inputs.keys()
    if missing:
        raise Failed(Reason.SELFTEST_SCHEMA, f"cases and model disagree on input {min(missing)}")
    ranks = {t.name: t.shape for t in inputs}
    batched = {n: _is_batched(a, ranks[n]) for n, a in cases.inputs.items()}
    sizes = {s[0] for n, s in ranks.items() if batched[n] and s and s[0] > 0}
    if len(sizes) > 1:
        sentence = f"the inputs' batches differ: {', '.join(map(str, sorted(sizes)))}"
        raise Failed(Reason.SELFTEST_SCHEMA, sentence)
    batch = max([1, *sizes])
    step = batch if all(batched.values()) else 1
    for start in range(0, cases.count, step):
        part = slice(start, min(start + step, cases.count))
        yield {n: _fed(a, part, batched[n], batch) for n, a in cases.inputs.items()}, part


def _is_batched(array: Array, shape: tuple[int, ...] | None) -> bool:
    return shape is None or array.ndim == len(shape)


def _fed(array: Array, part: slice, batched: bool, batch: int) -> Array:
    if not batched:
        # an array even of a scalar, which indexing makes a number of
        return np.asarray(array[part.start], array.dtype)
    given = array[part]
    lacking = max(batch - len(given), 0)
    return np.concatenate([given, np.repeat(given[-1:], lacking, axis=0)]) if lacking else given


@dataclass
class GoldenFigures:
    """What was measured; `agreement` is the share of cases with the expected largest output. Not
    `tried`: there were no cases, and the model refused an input that was made up."""

    cases: int = 0
    tried: bool = True
    worst: float = 0.0
    agreement: float | None = None
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    p05_ms: float = 0.0
    cpu_ms: float = 0.0


def run_cases(
    model: Runner,
    cases: Cases,
    *,
    atol: float,
    rtol: float,
    compare: Callable[[], None],
    by_agreement: bool = False,
) -> GoldenFigures:
    """Run every case and compare; `compare` is called before the first comparison. `by_agreement`
    no answer is beyond a tolerance: which one is largest is judged by who asked."""
    figures, agree, times = GoldenFigures(), [], []
    calls = list(feeds_of(cases, list(model.inputs)))
    answers = []
    for feeds, part in calls:
        begun = time.perf_counter()
        answers.append((model.run(feeds), part))
        times.append(time.perf_counter() - begun)
    compare()
    near, scaled = Tolerance(atol, rtol), {t.name for t in model.outputs if t.scale}
    wrong = 0
    for got, part in answers:
        bad = np.zeros(part.stop - part.start, bool)
        for name, expected in cases.outputs.items():
            wanted = expected[part]
            found = _output(got, name, wanted)
            difference, differ = compare_outputs(name, found, wanted, near, name in scaled)
            figures.worst, bad = max(figures.worst, difference), bad | differ
            if wanted.ndim == 2 and wanted.shape[1] > 1 and wanted.dtype.kind in "fiu":
                agree += list(found.argmax(1) == wanted.argmax(1))
        figures.cases += len(bad)
        wrong += int(bad.sum())
    if wrong and not by_agreement:
        sentence = f"{wrong} of {figures.cases} golden cases differ, by up to {figures.worst:.4g}"
        raise Failed(Reason.SELFTEST_MISMATCH, sentence)
    if figures.cases != cases.count:
        sentence = f"{cases.count} golden cases are declared; {figures.cases} were run"
        raise Failed(Reason.SELFTEST_MISMATCH, sentence)
    figures.agreement = float(np.mean(agree)) if agree else None
    repeated = _repeat(model, calls[0][0]) if calls else Times()
    _time(figures, [] if hasattr(model, "times") else times, repeated)
    return figures


def _output(got: Mapping[str, Array], name: str, wanted: Array) -> Array:
    if name not in got:
        raise Failed(Reason.SELFTEST_SCHEMA, f"the model has no output {name}")
    found = np.asarray(got[name])
    if found.ndim == wanted.ndim and len(found) > len(wanted):
        found = found[: len(wanted)]  # what answers the cases that only filled the batch
    if found.shape == wanted.shape[1:] and len(wanted) == 1:
        found = found[np.newaxis]
    if found.shape != wanted.shape:
        sentence = f"output {name}: expected shape {list(wanted.shape)}; got {list(found.shape)}"
        raise Failed(Reason.SELFTEST_SCHEMA, sentence)
    return found


@dataclass(frozen=True)
class Tolerance:
    """How near an output must be: |y - y0| <= atol + rtol |y0|."""

    atol: float
    rtol: float


def compare_outputs(
    name: str, found: Array, wanted: Array, near: Tolerance, scaled: bool = False
) -> tuple[float, NDArray[np.bool_]]:
    """Return the largest difference, and for each case whether it is beyond the tolerance.

    Texts and booleans are equal or not, and so are integers, but for those that stand for real
    numbers (`scaled`, quantised outputs): those may differ by `atol`. NaN agrees with NaN, an
    infinity with itself.
    """
    kinds = found.dtype.kind + wanted.dtype.kind
    if set(kinds) & set("fc"):
        return _compare_floats(name, found, wanted, near)
    if set(kinds) <= set("iu") and scaled:
        apart = np.abs(found.astype(np.float64) - wanted.astype(np.float64))
        return float(apart.max(initial=0.0)), _any_per_case(apart > near.atol)
    differ = np.asarray(found != wanted, bool)
    return float(differ.any()), _any_per_case(differ)


def _compare_floats(
    name: str, found: Array, wanted: Array, near: Tolerance
) -> tuple[float, NDArray[np.bool_]]:
    wide = np.complex128 if "c" in found.dtype.kind + wanted.dtype.kind else np.float64
    got, expected = found.astype(wide), wanted.astype(wide)
    finite = np.isfinite(got) & np.isfinite(expected)
    if (~np.isfinite(got) & np.isfinite(expected)).any():
        raise Failed(Reason.SELFTEST_NONFINITE, f"output {name} holds NaN or infinity")
    same = (got == expected) | (np.isnan(got) & np.isnan(expected))
    apart = np.where(same, 0.0, np.inf)
    apart[finite] = np.abs(got[finite] - expected[finite])
    allowed = np.zeros(apart.shape)
    allowed[finite] = near.atol + near.rtol * np.abs(expected[finite])
    return float(apart.max(initial=0.0)), _any_per_case(~(apart <= allowed))


def _any_per_case(differ: Array) -> NDArray[np.bool_]:
    return np.asarray(differ.reshape(len(differ), -1).any(axis=1))


def run_zeros(model: Runner) -> GoldenFigures:
    """Without golden cases: one call with zeros, each free size being 1.

    The input is made up: a model that refuses it, or answers it with NaN, may be a good one. It is
    loaded, then, and not tried. Running out of memory counts all the same.
    """
    figures = GoldenFigures()
    try:
        feeds = {t.name: zeros(t) for t in model.inputs}
        answers = [np.asarray(found) for found in model.run(feeds).values()]
        figures.tried = all(np.isfinite(a).all() for a in answers if a.dtype.kind in "fc")
        if figures.tried:
            _time(figures, [], _repeat(model, feeds))
    except Exception as e:
        if reason_of(e, "run") in _REFUSED:
            raise
        figures.tried = False
    return figures


def _repeat(model: Runner, feeds: Mapping[str, Array]) -> Times:
    (times,) = in_turns([(model, feeds)], within_s=_REPEAT_S)
    # a runtime that is called as a program measures the inference without its own start
    own = list(getattr(model, "times", []))
    return Times(own[1:] or own) if own else times


def _time(figures: GoldenFigures, cases: list[float], repeated: Times) -> None:
    # the first call pays for what later ones find ready
    steady = cases[1:] + repeated.wall
    figures.p50_ms, figures.p95_ms = (percentile_ms(steady, which) for which in (50, 95))
    figures.p05_ms, figures.cpu_ms = repeated.p05_ms, repeated.cpu_ms


def first_call(model: Runner, cases: Cases | None) -> Mapping[str, Array]:
    """Return the input of the first call that a test makes: the first cases, or zeros."""
    if cases is None:
        return {t.name: zeros(t) for t in model.inputs}
    return next(feeds_of(cases, list(model.inputs)))[0]
