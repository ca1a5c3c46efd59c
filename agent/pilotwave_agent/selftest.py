"""Try a version before it serves: in a child process that it may hang, crash or bloat.

The parent holds the clock and reads the verdict; whatever the child does ends in
`SelfTestFigures` or in a `RefusedError` with a reason of its own. Integrity is not judged here:
digests were, before.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pilotwave_agent.hardware import energy, instructions
from pilotwave_agent.hardware.board import int8_words
from pilotwave_agent.runtimes import COMMAND, RUNTIMES, WHEELHOUSE, Options, Tensor, engines
from pilotwave_agent.runtimes.confine import lacking
from pilotwave_agent.runtimes.faults import OUT_OF_MEMORY
from pilotwave_agent.selftest_child import Ended, in_child, remove_shared
from pilotwave_agent.settings.config import RuntimeSettings
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.manifest import Variant
from pilotwave_protocol.states import Reason

_STARTS = (COMMAND, WHEELHOUSE, "edge-impulse", "tensorrt")  # runtimes that start programs
_TURNS_S = 5.0
_BY_SIGNAL: dict[int, Reason] = {
    signal.SIGSEGV: Reason.SELFTEST_SEGFAULT,
    signal.SIGBUS: Reason.SELFTEST_SEGFAULT,
}


@dataclass(frozen=True)
class TestLimits:
    """What a self-test may take: wall seconds, MiB of memory (0: unbounded), seconds of CPU (0:
    twice the wall seconds); whether formats that run code are tried where nothing confines them;
    whether system calls are filtered; which instructions of the processor it does without."""

    __test__ = False

    timeout_s: float = 60.0
    memory_mb: int = 1024
    cpu_s: float = 0.0
    allow_unconfined: bool = False
    filter_calls: bool = True
    without: tuple[str, ...] = ()

    @property
    def cpu_limit_s(self) -> int:
        """The limit on CPU seconds as the kernel takes it."""
        return max(math.ceil(self.cpu_s or self.timeout_s * 2), 1)


@dataclass(frozen=True)
class SelfTestFolders:
    """Where a self-test runs: `own` is the agent's data folder, which no model may look into;
    `cache` holds the engines that were built here."""

    own: Path | None = None
    cache: Path | None = None


_BY_DEFAULT = RuntimeSettings()
_ANYWHERE = SelfTestFolders()


@dataclass(frozen=True)
class SelfTestFigures:
    """What a passed self-test measured. `agreement` is a share from 0 to 1, `where` says which
    runtime on which device answered. Not `tried`: it loaded, and that is all that is known."""

    cases: int
    worst: float
    agreement: float | None
    p50_ms: float
    p95_ms: float
    peak_mb: float
    base_mb: float = 0.0
    where: str = ""
    confined: tuple[str, ...] = ()
    tried: bool = True
    p05_ms: float = 0.0
    cpu_ms: float = 0.0
    load_ms: float = 0.0

    @property
    def confinement(self) -> str:
        """How confined the test was: "full", or what the model was not kept from."""
        return confinement_of(self.confined)

    def __str__(self) -> str:
        words = [f"{self.cases} golden cases" if self.cases else "no golden cases"]
        if not self.tried:
            words.append("loaded, not tried: it took no input that was made up")
        if self.agreement is not None:
            words.append(f"top-1 agreement {self.agreement:.0%}")
        if self.tried:
            quantiles = {"p05": self.p05_ms, "p50": self.p50_ms, "p95": self.p95_ms}
            words += [f"{name} {ms:.2f} ms" for name, ms in quantiles.items()]
        words.append(f"peak memory {self.peak_mb:.0f} MB")
        if lacking(self.confined):
            words.append(f"confined {self.confinement}")
        return ", ".join([*words, self.where] if self.where else words)


def confinement_of(held: Iterable[str]) -> str:
    """Say in words how confined a test was, of which these held."""
    missing = lacking(held)
    return f"without: {', '.join(missing)}" if missing else "full"


def run_selftest(
    folder: Path,
    variant: Variant,
    limits: TestLimits,
    settings: RuntimeSettings = _BY_DEFAULT,
    place: SelfTestFolders = _ANYWHERE,
    note: Callable[[str], None] = lambda confinement: None,
) -> SelfTestFigures:
    """Try the variant in `folder`; `note` is told how confined the test was, however it ended.
    Raises `RefusedError`, `OSError` if no child can be started."""
    if variant.runtime not in (*RUNTIMES, COMMAND, WHEELHOUSE):
        sentence = f"this agent cannot run {variant.runtime}"
        raise RefusedError(Reason.RUNTIME_MISSING, sentence)
    spec = _spec(folder, variant, limits, settings, place)
    ended = in_child(spec, settings.python or sys.executable, limits.timeout_s)
    remove_shared(ended)
    if (held := ended.last("confined")) is not None:
        note(confinement_of(held))
    return _judged(ended, variant, limits)


@dataclass(frozen=True)
class TurnFigures:
    """The 5th percentile of a call, its CPU time, and its energy where that was counted."""

    p05_ms: float
    cpu_ms: float
    energy_mj: float | None = None


def run_in_turns(
    tried: Sequence[tuple[Path, Variant]],
    limits: TestLimits,
    place: SelfTestFolders = _ANYWHERE,
    meter: energy.Meter | None = None,
) -> list[TurnFigures]:
    """Time variants that have passed their self-tests, all loaded at once and called in turns; with
    a `meter`, count the energy of a call of each, which takes some seconds more.

    Raises `RefusedError`, as where they have no room beside each other, and `OSError`.
    """
    specs = [_spec(folder, variant, limits, _BY_DEFAULT, place) for folder, variant in tried]
    told = {**specs[0], "turns": specs, "within_s": min(_TURNS_S, limits.timeout_s / 4)}
    told |= {"stretch_s": meter.stretch_s if meter else 0.0, "rounds": meter.rounds if meter else 0}
    with energy.sampled(meter) if meter else contextlib.nullcontext(energy.Curve()) as curve:
        ended = in_child(told, sys.executable, limits.timeout_s)
    found = _passed(ended, limits)["figures"]
    millijoules = energy.per_call_mj(curve, found)
    return [
        TurnFigures(times["p05_ms"], times["cpu_ms"], mj)
        for times, mj in zip(found["turns"], [*millijoules, *([None] * len(tried))], strict=False)
    ]


def may_take_turns(variant: Variant, settings: RuntimeSettings) -> bool:
    """Say whether the variant can be loaded beside others: not one that starts programs or has an
    interpreter or devices of its own."""
    return variant.runtime not in _STARTS and settings == _BY_DEFAULT


def record_answers(
    folder: Path, variant: Variant, inputs: Path, out: Path, limits: TestLimits
) -> dict[str, Any]:
    """Have the variant answer `inputs` (safetensors, or JSON for strings) in a child process, and
    copy the golden cases that it writes into `out`. Raises `RefusedError`, `OSError`."""
    spec = _spec(folder, variant, limits, _BY_DEFAULT, _ANYWHERE)
    spec |= {"cases": None, "record": str(inputs)}
    return _written(spec, sys.executable, limits, out)


def learn_from(
    folder: Path,
    variant: Variant,
    examples: Path,
    plan: bytes,
    out: Path,
    limits: TestLimits,
    settings: RuntimeSettings = _BY_DEFAULT,
    place: SelfTestFolders = _ANYWHERE,
    *,
    head: Path | None = None,
) -> int:
    """Have the variant answer labelled `examples` in a child process, and copy the numbers of an
    update into `out`; return of how many examples they are. `head` is the one to go on from.
    Raises `RefusedError`, `OSError`."""
    spec = _spec(folder, variant, limits, settings, place)
    spec |= {"cases": None, "record": str(examples), "plan": plan.decode()}
    spec["head"] = str(head) if head else None
    return int(_written(spec, settings.python or sys.executable, limits, out)["examples"])


def adapt_from(
    folder: Path,
    variant: Variant,
    examples: Path,
    task: str,
    out: Path,
    limits: TestLimits,
    settings: RuntimeSettings = _BY_DEFAULT,
    place: SelfTestFolders = _ANYWHERE,
) -> Mapping[str, Any]:
    """Have a child process fit a residual head as an `AdaptTask` says, and copy its numbers into
    `out`; return what it found. Raises `RefusedError`, `OSError`."""
    spec = _spec(folder, variant, limits, settings, place)
    spec |= {"record": str(examples), "adapt": task}
    return _written(spec, settings.python or sys.executable, limits, out)


def _written(spec: dict[str, Any], python: str, limits: TestLimits, out: Path) -> dict[str, Any]:
    """Have a child copy what it writes into `out`; return its figures."""
    ended = in_child(spec, python, limits.timeout_s, out)
    remove_shared(ended)
    figures: dict[str, Any] = _passed(ended, limits)["figures"]
    return figures


def _spec(
    folder: Path,
    variant: Variant,
    limits: TestLimits,
    settings: RuntimeSettings,
    place: SelfTestFolders,
) -> dict[str, Any]:
    """What the child is told."""
    cases = variant.selftest
    wished = [variant.requires.accelerator] if variant.requires.accelerator else []
    return {
        "record": None,
        "plan": None,
        "head": None,
        "adapt": None,
        "turns": [],
        "runtime": variant.runtime,
        "folder": str(folder),
        "entrypoint": variant.entrypoint,
        "inputs": [asdict(t) for t in variant.inputs],
        "outputs": [asdict(t) for t in variant.outputs],
        "cases": cases.cases if cases else None,
        "atol": cases.atol if cases else "0",
        "rtol": cases.rtol if cases else "0",
        "by_agreement": cases is not None and cases.min_agreement is not None,
        "threads": settings.threads,
        "devices": [*settings.devices, *wished],
        "precision": variant.precision,
        "hidden": str(place.own) if place.own else None,
        "cache": str(place.cache) if place.cache else None,
        "program": _own_program(place.own),
        "timeout_s": limits.timeout_s,
        "memory_mb": limits.memory_mb,
        "cpu_s": limits.cpu_limit_s,
        "parent": os.getpid(),
        "starts": variant.runtime in _STARTS,
        "talks": variant.runtime == "edge-impulse",
        "allow_unconfined": limits.allow_unconfined,
        "filter_calls": limits.filter_calls,
        "environment": instructions.without(limits.without),
    }


def _own_program(own: Path | None) -> str | None:
    """Return the environment that this agent runs from, where it lies in its data folder: the child
    needs it, and the folder is hidden."""
    prefix = Path(sys.prefix).resolve()
    inside = own is not None and prefix.is_relative_to(own.resolve())
    return str(prefix) if inside else None


def prepare(
    folder: Path, variant: Variant, settings: RuntimeSettings, place: SelfTestFolders
) -> bool:
    """Build on this device what the variant's runtime opens, unless it was built; say whether.

    That is TensorRT's engine of an ONNX file: it takes minutes, once, and all of the GPU's memory,
    so that it has a limit of its own. Raises `RefusedError`.
    """
    inputs = tuple(Tensor(t.name, t.dtype, t.shape) for t in variant.inputs)
    options = Options(inputs=inputs, precision=variant.precision, cache=place.cache)
    file = folder / variant.entrypoint
    return engines.build_missing(file, options, timeout_s=settings.build_timeout_s)


def _judged(ended: Ended, variant: Variant, limits: TestLimits) -> SelfTestFigures:
    verdict = _passed(ended, limits)
    return _within(_figures(verdict["figures"], ended), variant, limits)


def _passed(ended: Ended, limits: TestLimits) -> Mapping[str, Any]:
    """The child's verdict, where it is a good one. Raises `RefusedError`."""
    verdict = ended.verdict
    if ended.timed_out or ended.status == -signal.SIGXCPU:
        within = (
            f"{limits.timeout_s:.0f} s" if ended.timed_out else f"{limits.cpu_limit_s} s of CPU"
        )
        sentence = f"no end within {within} ({ended.when})"
        raise RefusedError(Reason.SELFTEST_TIMEOUT, sentence)
    if verdict is None:
        raise _died(ended, limits)
    if verdict["verdict"] != "ok":
        reason = Reason(verdict["verdict"])
        sentence = str(verdict.get("sentence", ""))
        if reason is Reason.SELFTEST_MEMORY:
            sentence = f"more than the {limits.memory_mb} MB it may take: {sentence}"
        raise RefusedError(reason, f"{ended.when}: {sentence}")
    return verdict


def _figures(found: Mapping[str, Any], ended: Ended) -> SelfTestFigures:
    measured = {name: found[name] for name in SelfTestFigures.__dataclass_fields__ if name in found}
    info = ended.last("info") or {}
    where = f"{info['runtime']} {info['version']} on {info['device']}" if info else ""
    return SelfTestFigures(**measured, where=where, confined=tuple(ended.last("confined") or ()))


def _within(figures: SelfTestFigures, variant: Variant, limits: TestLimits) -> SelfTestFigures:
    limit_ms = variant.selftest.max_latency_ms if variant.selftest else None
    if limit_ms and figures.p95_ms > limit_ms:
        sentence = f"p95 of {figures.p95_ms:.1f} ms; at most {limit_ms} ms are allowed"
        raise RefusedError(Reason.SELFTEST_SLOW, sentence)
    if variant.selftest and variant.selftest.min_agreement is not None:
        _check_agreement(figures, float(variant.selftest.min_agreement))
    if limits.memory_mb and figures.peak_mb > limits.memory_mb:
        sentence = f"peak memory {figures.peak_mb:.0f} MB; at most {limits.memory_mb} are allowed"
        raise RefusedError(Reason.SELFTEST_MEMORY, sentence)
    return figures


def _check_agreement(figures: SelfTestFigures, asked: float) -> None:
    """The arithmetic of a small precision is the processor's own: no tolerance holds for all."""
    share = figures.agreement
    if share is not None and share >= asked:
        return
    have = "no answer has classes, so none" if share is None else f"agreed on {100 * share:.3g} %"
    sentence = (
        f"{have} of {figures.cases} golden cases, at least {100 * asked:.3g} % are asked: "
        f"this CPU is {int8_words(Path('/'))}"
    )
    raise RefusedError(Reason.SELFTEST_AGREEMENT, sentence)


def _died(ended: Ended, limits: TestLimits) -> RefusedError:
    tail = " ".join(ended.stderr.decode(errors="replace").split())[-300:]
    starved = OUT_OF_MEMORY.search(tail)
    if starved or ended.status == -signal.SIGKILL:
        sentence = f"the system or the limit of {limits.memory_mb} MB ended it"
        return RefusedError(Reason.SELFTEST_MEMORY, f"{ended.when}: {sentence}")
    if ended.status < 0:
        name = signal.Signals(-ended.status).name
        reason = _BY_SIGNAL.get(-ended.status, Reason.SELFTEST_CRASH)
        return RefusedError(reason, f"ended by {name} {ended.when}: {tail}")
    sentence = f"ended with status {ended.status} {ended.when}: {tail}"
    return RefusedError(Reason.SELFTEST_ERROR, sentence)
