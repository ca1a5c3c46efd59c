"""The child process that tries a candidate beside the version that serves.

It reads one line for each input from stdin, calls both versions, and answers with figures in one
line on a descriptor of its own: runtimes write to stdout as they please. Tensors come by memory
that both processes hold (`shadow_tensors`); its first byte says which version is at work, so that
the application knows which one ended or hung this process. Nothing of an input leaves it but
figures, and both answers where the application asks for them.

It runs when nothing else wants the processor, and may neither write files nor connect anywhere,
where the kernel can see to that.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pilotwave_agent.live.compare import compare, nonfinite
from pilotwave_agent.live.generation import Generation
from pilotwave_agent.live.links import ModelLinks
from pilotwave_agent.live.loader import Loading, LoadOptions, words_of
from pilotwave_agent.live.shadow_tensors import TensorMemory, end_of
from pilotwave_agent.runtimes import confine, programs

CANDIDATE, SERVING, NEITHER = b"c", b"s", b"-"
_STARTS = ("edge-impulse", "tensorrt")  # runtimes that start programs
_SMALL = 64 << 20


class _Child:
    def __init__(self, spec: dict[str, Any]) -> None:
        self._spec = spec
        self._memory = TensorMemory(spec["memory"])
        self._links = ModelLinks(Path(spec["data"]), spec["model"])
        self._about = self._links.about(spec["candidate"])
        self._base_mb = 0.0
        self._peaks = {CANDIDATE: 0.0, SERVING: 0.0}
        self._held = {CANDIDATE: 0.0, SERVING: 0.0}
        self._turn = 0
        self.checked: Mapping[str, Any] = {}
        """What the candidate answers to the inputs that it is warmed up with."""
        self.candidate: Generation | None = None
        self.serving: Generation | None = None

    def say(self, **words: Any) -> None:
        os.write(self._spec["out"], json.dumps(words, allow_nan=False).encode() + b"\n")

    # --- loading

    def load(self) -> None:
        """Open both versions, or the candidate alone where there is no room for both."""
        if self._is_small(self._spec["serving"]):
            # what a runtime takes for its first model of all is not the candidate's
            with contextlib.suppress(Exception):
                self._opened(SERVING, self._spec["serving"]).close()
            self._held[SERVING] = self._peaks[SERVING] = 0.0
        self._base_mb = _resident_mb()
        self.candidate = self._opened(CANDIDATE, self._spec["candidate"])
        with contextlib.suppress(Exception):
            self.serving = self._opened(SERVING, self._spec["serving"])

    def _is_small(self, name: str) -> bool:
        about = self._links.about(name)
        return (self._links.files(name) / about.entrypoint).stat().st_size < _SMALL

    def _opened(self, which: bytes, name: str) -> Generation:
        self.enter(which)
        warmup = self._spec["warmup"]
        options = LoadOptions(
            threads=self._spec["threads"],
            devices=tuple(self._spec["devices"]),
            warmup=self._memory.get(warmup, sys.maxsize) if warmup else None,
            check=self._keep if which == CANDIDATE and self._spec["checks"] else None,
            timeout_s=self._spec["timeout_s"],
        )
        done = threading.Event()
        with self._measured(which):
            loading = Loading(self._links, name, options, done.set)
            done.wait()
        if loading.generation is None:
            raise loading.no or RuntimeError("not loaded")
        return loading.generation

    def _keep(self, outputs: Mapping[str, Any]) -> None:
        self.checked = outputs

    def say_ready(self, held: list[str]) -> None:
        """Say that calls may come, with the answer that the application checks."""
        first = end_of(self._spec["warmup"] or [])
        checked = self._memory.put(self.checked, first) if self.checked else None
        self.say(ready=True, serving=self.serving is not None, held=held, checked=checked)

    # --- calls

    def answer(self, words: dict[str, Any]) -> dict[str, Any]:
        """Call both versions, in turns one and the other first, and say how they compare."""
        feeds = self._memory.get(words["inputs"], sys.maxsize)
        self._turn += 1
        ms: dict[bytes, float] = {}
        outputs: dict[bytes, Mapping[str, Any]] = {}
        order = [CANDIDATE, SERVING] if self._turn % 2 else [SERVING, CANDIDATE]
        for which in order:
            generation = self.candidate if which == CANDIDATE else self.serving
            if generation is None:
                outputs[which] = self._memory.get(words["outputs"], sys.maxsize)
                continue
            self.enter(which)
            with self._measured(which):
                begun = time.perf_counter()
                try:
                    outputs[which] = generation.run(feeds)
                except Exception as e:
                    return {"failed": which.decode(), "sentence": words_of(e)}
                ms[which] = (time.perf_counter() - begun) * 1000
        found = self._figures(outputs[SERVING], outputs[CANDIDATE], ms)
        if words["returns"] and "failed" not in found:
            # an answer that cannot be handed back is missing, which is no crash
            with contextlib.suppress(OSError, TypeError, MemoryError):
                ours = self._memory.put(outputs[SERVING])
                found["outputs"] = [ours, self._memory.put(outputs[CANDIDATE], end_of(ours))]
        return found

    def _figures(
        self, serving: Mapping[str, Any], candidate: Mapping[str, Any], ms: dict[bytes, float]
    ) -> dict[str, Any]:
        self.enter(CANDIDATE)  # what it answers may be odd enough to end a comparison
        try:
            found = compare(serving, candidate, **_how(self._about.compare))
        except ValueError as e:
            return {"failed": SERVING.decode(), "sentence": f"compare: {words_of(e)}"}
        scores = (found.candidate_score, found.score)
        return {
            "disagree": not found.agrees,
            "nonfinite": nonfinite(serving, candidate),
            "distance": found.distance,
            "score_change": None if None in scores else scores[0] - scores[1],  # type: ignore[operator]
            "serving_ms": ms.get(SERVING),
            "candidate_ms": ms[CANDIDATE],
            "memory_ratio": self._memory_ratio(),
        }

    def _memory_ratio(self) -> float | None:
        if self.serving is None or not self._base_mb:
            return None
        ours, theirs = (self._base_mb + self._peaks[w] for w in (SERVING, CANDIDATE))
        return theirs / ours

    def enter(self, which: bytes) -> None:
        os.pwrite(self._memory.fd, which, 0)

    @contextlib.contextmanager
    def _measured(self, which: bytes) -> Any:
        """Charge what this takes of memory to a version."""
        before = _resident_mb()
        with contextlib.suppress(OSError), open("/proc/self/clear_refs", "wb") as peak:
            peak.write(b"5")
        yield
        used = max(confine.peak_mb() - before, 0.0)
        self._peaks[which] = max(self._peaks[which], self._held[which] + used)
        self._held[which] = max(self._held[which] + _resident_mb() - before, 0.0)


def _how(said: Mapping[str, Any] | None) -> dict[str, Any]:
    said = said or {}
    tolerance = said.get("tolerance")
    return {
        "by": said.get("by"),
        "output": said.get("output"),
        "tolerance": float(tolerance) if tolerance is not None else None,
    }


def _resident_mb() -> float:
    with open("/proc/self/statm", "rb") as said:
        return int(said.read().split()[1]) * resource.getpagesize() / (1 << 20)


def _step_back() -> None:
    """Run when nothing else wants the processor, and be the first to go when memory runs out."""
    with contextlib.suppress(OSError):
        os.nice(19)
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def _confine(spec: dict[str, Any]) -> list[str]:
    starts = spec["runtime"] in _STARTS
    wish = confine.Confinement(
        memory_mb=spec["memory_mb"],
        cpu_s=resource.RLIM_INFINITY,
        writable=(Path.cwd(),),
        starts=starts,
        talks=spec["runtime"] == "edge-impulse",
    )
    programs.before_start = lambda: confine.confine_program(wish, own_world=False)
    return confine.confine(wish, set())


def main() -> None:
    """Try the candidate that the first line of stdin names, until stdin ends."""
    spec = json.loads(sys.stdin.buffer.readline())
    confine.die_with_parent(spec["parent"])
    _step_back()
    held = _confine(spec)
    child = _Child(spec)
    try:
        child.load()
    except BaseException as e:  # a runtime may raise anything
        child.say(refused=words_of(e))
        os._exit(0)
    child.enter(NEITHER)
    child.say_ready(held)
    for line in sys.stdin.buffer:
        begun = time.process_time()
        words = child.answer(json.loads(line))
        child.enter(NEITHER)
        child.say(**words, cpu_s=time.process_time() - begun)
    os._exit(0)  # a runtime may crash while it is torn down


if __name__ == "__main__":
    main()
