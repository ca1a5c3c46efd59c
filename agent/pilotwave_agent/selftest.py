"""Try a version before it serves: in a child process that it may hang, crash or bloat.

The parent holds the clock and reads the verdict; whatever the child does ends in a `Figures` or in
a `RefusedError` with a reason of its own. Integrity is not judged here: digests were, before.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pilotwave_agent.runtimes import RUNTIMES
from pilotwave_agent.runtimes.faults import OUT_OF_MEMORY
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.manifest import Variant
from pilotwave_protocol.states import Reason

_WORKER = "pilotwave_agent.runtimes.worker"
_TAIL = 2000
_BY_SIGNAL: dict[int, Reason] = {
    signal.SIGSEGV: Reason.SELFTEST_SEGFAULT,
    signal.SIGBUS: Reason.SELFTEST_SEGFAULT,
}


@dataclass(frozen=True)
class TestLimits:
    """What a self-test may take: wall seconds, MiB of memory (0: unbounded)."""

    __test__ = False

    timeout_s: float = 60.0
    memory_mb: int = 1024


@dataclass(frozen=True)
class Figures:
    """What a passed self-test measured. `agreement` is a share from 0 to 1."""

    cases: int
    worst: float
    agreement: float | None
    p50_ms: float
    p95_ms: float
    peak_mb: float

    def __str__(self) -> str:
        words = [f"{self.cases} golden cases" if self.cases else "no golden cases"]
        if self.agreement is not None:
            words.append(f"top-1 agreement {self.agreement:.0%}")
        words += [f"p50 {self.p50_ms:.2f} ms, p95 {self.p95_ms:.2f} ms"]
        return ", ".join([*words, f"peak memory {self.peak_mb:.0f} MB"])


def run_selftest(folder: Path, variant: Variant, limits: TestLimits) -> Figures:
    """Try the variant in `folder`. Raises `RefusedError`, `OSError` if no child can be started."""
    runtime = RUNTIMES.get(variant.runtime)
    if runtime is None:
        sentence = f"this agent cannot run {variant.runtime}"
        raise RefusedError(Reason.RUNTIME_MISSING, sentence)
    cases = variant.selftest
    spec = {
        "module": runtime.module,
        "folder": str(folder),
        "entrypoint": variant.entrypoint,
        "inputs": [asdict(t) for t in variant.inputs],
        "outputs": [asdict(t) for t in variant.outputs],
        "cases": cases.cases if cases else None,
        "atol": cases.atol if cases else "0",
        "rtol": cases.rtol if cases else "0",
        "memory_mb": limits.memory_mb,
        "cpu_s": max(int(limits.timeout_s * 2), 2),
        "parent": os.getpid(),
    }
    ended = _in_child(spec, limits.timeout_s)
    return _judged(ended, variant, limits)


@dataclass(frozen=True)
class _Ended:
    lines: list[dict[str, Any]]
    status: int
    timed_out: bool
    stderr: bytes

    @property
    def stage(self) -> str:
        return next((line["stage"] for line in reversed(self.lines) if "stage" in line), "start")

    @property
    def verdict(self) -> Mapping[str, Any] | None:
        last = self.lines[-1] if self.lines else {}
        return last if "verdict" in last else None


def _in_child(spec: dict[str, Any], timeout_s: float) -> _Ended:
    scratch = tempfile.mkdtemp(prefix="pw-")
    try:
        with tempfile.TemporaryFile(dir=scratch) as noise, _pipe() as (reader, writer):
            child = subprocess.Popen(
                [sys.executable, "-I", "-m", _WORKER],
                stdin=subprocess.PIPE,
                stdout=noise,
                stderr=noise,
                pass_fds=(writer,),
                start_new_session=True,
                env=_scrubbed(scratch),
                cwd=scratch,
            )
            told = json.dumps({**spec, "fd": writer}).encode()
            timed_out = _wait(child, told, timeout_s)
            noise.seek(max(noise.seek(0, os.SEEK_END) - _TAIL, 0))
            return _Ended(_lines(reader), child.returncode, timed_out, noise.read())
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    try:
        yield reader, writer
    finally:
        os.close(reader)
        os.close(writer)


def _scrubbed(scratch: str) -> dict[str, str]:
    """Return the environment of a child: nothing of ours but where programs and libraries are."""
    kept = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL")
    return {
        **{name: os.environ[name] for name in kept if name in os.environ},
        "HOME": scratch,
        "TMPDIR": scratch,
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


def _wait(child: subprocess.Popen[bytes], told: bytes, timeout_s: float) -> bool:
    """Wait for the child's end, or kill it and all that it started; say whether time was up."""
    timed_out = False
    try:
        child.communicate(told, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        timed_out = True
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    return timed_out


def _lines(reader: int) -> list[dict[str, Any]]:
    """Read what the child said. What a model may have scribbled in between is passed over."""
    said = bytearray()
    with contextlib.suppress(BlockingIOError):
        while chunk := os.read(reader, 1 << 16):
            said += chunk
    lines = []
    for line in bytes(said).splitlines():
        with contextlib.suppress(ValueError):
            found = json.loads(line)
            if isinstance(found, dict):
                lines.append(found)
    return lines


def _judged(ended: _Ended, variant: Variant, limits: TestLimits) -> Figures:
    verdict = ended.verdict
    if ended.timed_out or ended.status == -signal.SIGXCPU:
        sentence = f"no end within {limits.timeout_s:.0f} s (at stage {ended.stage})"
        raise RefusedError(Reason.SELFTEST_TIMEOUT, sentence)
    if verdict is None:
        raise _died(ended, limits)
    if verdict["verdict"] != "ok":
        reason = Reason(verdict["verdict"])
        sentence = str(verdict.get("sentence", ""))
        if reason is Reason.SELFTEST_MEMORY:
            sentence = f"more than the {limits.memory_mb} MB it may take: {sentence}"
        raise RefusedError(reason, f"at stage {ended.stage}: {sentence}")
    return _within(_figures(verdict["figures"]), variant, limits)


def _figures(found: Mapping[str, Any]) -> Figures:
    return Figures(**{name: found[name] for name in Figures.__dataclass_fields__})


def _within(figures: Figures, variant: Variant, limits: TestLimits) -> Figures:
    limit_ms = variant.selftest.max_latency_ms if variant.selftest else None
    if limit_ms and figures.p95_ms > limit_ms:
        sentence = f"p95 of {figures.p95_ms:.1f} ms; at most {limit_ms} ms are allowed"
        raise RefusedError(Reason.SELFTEST_SLOW, sentence)
    if limits.memory_mb and figures.peak_mb > limits.memory_mb:
        sentence = f"peak memory {figures.peak_mb:.0f} MB; at most {limits.memory_mb} are allowed"
        raise RefusedError(Reason.SELFTEST_MEMORY, sentence)
    return figures


def _died(ended: _Ended, limits: TestLimits) -> RefusedError:
    tail = " ".join(ended.stderr.decode(errors="replace").split())[-300:]
    starved = OUT_OF_MEMORY.search(tail)
    if starved or ended.status == -signal.SIGKILL:
        sentence = f"the system or the limit of {limits.memory_mb} MB ended it"
        return RefusedError(Reason.SELFTEST_MEMORY, f"at stage {ended.stage}: {sentence}")
    if ended.status < 0:
        name = signal.Signals(-ended.status).name
        reason = _BY_SIGNAL.get(-ended.status, Reason.SELFTEST_CRASH)
        return RefusedError(reason, f"{name} at stage {ended.stage}: {tail}")
    sentence = f"ended with status {ended.status} at stage {ended.stage}: {tail}"
    return RefusedError(Reason.SELFTEST_ERROR, sentence)
