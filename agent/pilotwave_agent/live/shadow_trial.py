"""Try one candidate beside one serving version, in a child process, for as long as it is asked for.

A call that is sampled hands its inputs over and goes on; a thread waits for the figures. One input
is with the child at a time: what comes meanwhile is counted and dropped, so nothing waits in line.
A child that crashes or hangs counts as an error of the candidate, is started again after a pause
that grows, and is given up when it comes to nothing.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from pilotwave_agent.live import shadow_tensors
from pilotwave_agent.live.generation import Generation
from pilotwave_agent.live.links import ModelLinks
from pilotwave_agent.live.loader import LoadOptions, version_of
from pilotwave_agent.live.recorder import Recorder
from pilotwave_agent.live.shadow_limits import ShadowLimits
from pilotwave_agent.live.shadow_orders import Compare, Pair
from pilotwave_agent.live.shadow_process import Ended, ShadowProcess
from pilotwave_protocol import shadow

MAX_ENDS = 4
"""So many children in a row that come to nothing, and the candidate is given up."""
_GOOD_CALLS = 20  # a child that answered so many came to something
_LONGEST_PAUSE_S = 60.0
_LOOK_EVERY_S = 1.0
_LEAST_TIMEOUT_S = 1.0
_MOST_STARVED = 30  # timeouts that a child may wait for a processor
_MAX_OUTPUTS = 64 << 20
_CANDIDATE, _SERVING = "c", "s"
_WHO = {_CANDIDATE: "the candidate", _SERVING: "the serving version"}
_MEASURED = {
    "disagree": shadow.DISAGREE,
    "nonfinite": shadow.NONFINITE,
    "distance": shadow.DISTANCE,
    "score_change": shadow.SCORE_CHANGE,
    "memory_ratio": shadow.MEMORY_RATIO,
}


class Trial:
    """One pair. `offer` is called by any thread, once for each call of the serving version."""

    def __init__(
        self,
        place: ModelLinks,
        pair: Pair,
        options: LoadOptions,
        recorder: Recorder,
        compare: Compare | None,
        memory_mb: int,
    ) -> None:
        self.pair = pair
        self.sentence = ""
        self._links, self._options, self._compare = place, options, compare
        self._memory_mb, self._recorder = memory_mb, recorder
        about = place.about(pair.orders.name)  # may raise OSError, ValueError, TypeError
        self._candidate = version_of(about, pair.orders.name, place)
        self._runtime = about.runtime
        self._share = pair.orders.terms.share
        self._limits = ShadowLimits(pair.orders.terms.cpu, time.monotonic())
        self._lock = threading.Lock()
        self._running: ShadowProcess | None = None
        self._process: ShadowProcess | None = None  # that is ready for calls
        self._sent_at: float | None = None
        self._both = True
        self._given_up = False
        self._ends = threading.Event()
        self._recent: deque[float] = deque(maxlen=64)
        self._answered = 0
        self._thread = threading.Thread(target=self._run, name="pilotwave-shadow", daemon=True)
        self._thread.start()

    # --- in the application's threads

    def offer(
        self,
        generation: Generation,
        feeds: Mapping[str, Any],
        outputs: Mapping[str, Any],
        ms: float,
    ) -> None:
        """Hand a call's inputs over, if it is one of the sample and there is room for it."""
        if random.random() >= self._share:
            return
        if self._given_up:
            self._count(shadow.ERROR, 1.0)  # it would not have answered this one either
            return
        if not self._lock.acquire(blocking=False):
            self._count(shadow.DROPPED, 1.0)
            return
        try:
            free = self._process is not None and self._sent_at is None
            free = free and not generation.is_behind
            taken = free and self._limits.has_room(time.monotonic()) and self._hand(feeds, outputs)
        finally:
            self._lock.release()
        if taken:
            self._recent.append(ms)
        self._count(shadow.DROPPED, 0.0 if taken else 1.0)

    def _hand(self, feeds: Mapping[str, Any], outputs: Mapping[str, Any]) -> bool:
        process = self._process
        assert process is not None
        try:
            words = {"inputs": shadow_tensors.put(process.memory, feeds)}
            if not self._both:
                at = shadow_tensors.end_of(words["inputs"])
                words["outputs"] = shadow_tensors.put(process.memory, outputs, at)
        except (OSError, TypeError, ValueError):
            return False
        process.send(words)
        self._sent_at = time.monotonic()
        return True

    def _count(self, metric: str, value: Any) -> None:
        if isinstance(value, (int, float)) and math.isfinite(value):
            self._recorder.number(self._candidate, metric, float(value))

    # --- ending

    def end(self) -> None:
        """End it; nobody waits for that."""
        self._ends.set()
        with self._lock:
            if self._running:
                self._running.wake()

    def join(self, timeout_s: float) -> None:
        """Wait for the end."""
        self._thread.join(timeout_s)

    def forget(self) -> None:
        """In a process that was forked: the thread is gone and the child is the parent's."""
        if self._running:
            self._running.forget()

    # --- the thread

    def _run(self) -> None:
        in_vain = 0
        while not self._ends.is_set():
            self._answered = 0
            blames = self._one_child()
            if self._ends.is_set():
                return
            if blames:
                self._count(shadow.ERROR, 1.0)
            in_vain = 0 if self._answered >= _GOOD_CALLS else in_vain + 1
            if in_vain >= MAX_ENDS:
                self.sentence = f"given up: {self.sentence}"
                self._given_up = blames
                return
            self._ends.wait(min(0.5 * 2**in_vain, _LONGEST_PAUSE_S))

    def _one_child(self) -> bool:
        """Run one child to its end; say whether the candidate is to blame for that."""
        try:
            process = ShadowProcess(self._spec())
        except OSError as e:
            self.sentence = f"its process cannot be started: {e.strerror}"
            return False
        patience_s, said, blames = 0.0, "", True
        with self._lock:
            self._running = process
        try:
            self._converse(process)
            return False
        except Ended:
            patience_s = 1.0
        except _Fails as e:
            said, blames = str(e), e.blames
        finally:
            with self._lock:
                self._running = self._process = self._sent_at = None
            stage = process.stage().decode("ascii", "replace")
            how = process.end(patience_s)
        self.sentence = f"{_WHO.get(stage, 'its process')} {said or how}"
        return blames and stage == _CANDIDATE

    def _spec(self) -> dict[str, Any]:
        return {
            "data": str(self._links.data),
            "model": self._links.model,
            "candidate": self.pair.orders.name,
            "serving": self.pair.serving.name,
            "runtime": self._runtime,
            "threads": self._options.threads,
            "devices": list(self._options.devices),
            "timeout_s": self._options.timeout_s,
            "memory_mb": self._memory_mb,
            "returns": self._compare is not None,
        }

    def _converse(self, process: ShadowProcess) -> None:
        """Wait for the child to be ready, then for its answers. Raises `Ended`, `_Fails`."""
        watch = _Watch(process)
        watch.begin(time.monotonic(), self._options.timeout_s * 2)
        while not self._ends.is_set():
            self._limits.look(time.monotonic())
            words = process.read(min(watch.left_s(), _LOOK_EVERY_S))
            if words is None:
                self._attend(watch)
            elif "refused" in words:
                raise _Fails(f"cannot be loaded: {str(words['refused'])[:400]}")
            elif words.get("ready") is True:
                watch.over()
                with self._lock:
                    self._process, self._both = process, words.get("serving") is True
            else:
                watch.over()
                self._take(process, words)

    def _attend(self, watch: _Watch) -> None:
        """See to a call that nobody has answered yet."""
        with self._lock:
            sent_at = self._sent_at
        if sent_at is not None:
            watch.begin(sent_at, self._timeout_s())
        watch.check()

    def _timeout_s(self) -> float:
        """Return ten times what nearly all calls take, at least a second."""
        recent = sorted(self._recent)
        p95 = recent[int(0.95 * len(recent))] if recent else 0.0
        return max(p95 / 1000 * 10, _LEAST_TIMEOUT_S)

    def _take(self, process: ShadowProcess, words: dict[str, Any]) -> None:
        """Count the figures of a call."""
        if words.get("failed") == _CANDIDATE:
            self.sentence = f"the candidate: {str(words.get('sentence'))[:400]}"
            self._count(shadow.ERROR, 1.0)
        elif "failed" in words:
            self.sentence = f"the serving version: {str(words.get('sentence'))[:400]}"
        else:
            self._count_pair(process, words)
        self._answered += 1
        spent = words.get("cpu_s")
        with self._lock:
            if isinstance(spent, float) and math.isfinite(spent):
                self._limits.used(max(spent, 0.0))
            self._sent_at = None

    def _count_pair(self, process: ShadowProcess, words: dict[str, Any]) -> None:
        if self._compare is not None:
            words["disagree"] = self._by_application(process, words.get("outputs"))
        self._count(shadow.ERROR, 0.0)
        for word, metric in _MEASURED.items():
            self._count(metric, words.get(word))
        ours, theirs = words.get("serving_ms"), words.get("candidate_ms")
        if isinstance(ours, float) and isinstance(theirs, float) and ours > 0:
            self._recent.append(ours)
            self._count(shadow.LATENCY_RATIO, theirs / ours)

    def _by_application(self, process: ShadowProcess, words: Any) -> bool | None:
        """Say whether the application's own comparison finds a difference."""
        assert self._compare is not None
        try:
            ours, theirs = (shadow_tensors.get(process.memory, w, _MAX_OUTPUTS) for w in words)
        except (OSError, TypeError, ValueError):
            return True  # a candidate that answers with more than anybody asked for
        try:
            return not self._compare(ours, theirs)
        except Exception as e:
            self.sentence = f"the application's compare: {type(e).__name__}: {e}"[:400]
            return None


class _Fails(Exception):
    """The child does not get on."""

    def __init__(self, sentence: str, *, blames: bool = True) -> None:
        super().__init__(sentence)
        self.blames = blames


class _Watch:
    """Tells a child that hangs from one that gets no processor."""

    def __init__(self, process: ShadowProcess) -> None:
        self._process = process
        self._begun: float | None = None
        self._ends, self._timeout_s, self._cpu_s, self._starved = math.inf, 0.0, 0.0, 0

    def begin(self, at: float, timeout_s: float) -> None:
        """Watch what began at `at`, if it is not watched yet."""
        if self._begun != at:
            self._begun, self._timeout_s, self._ends = at, timeout_s, at + timeout_s
            self._cpu_s, self._starved = self._process.cpu_s(), 0

    def over(self) -> None:
        """It has come to its end."""
        self._begun, self._ends = None, math.inf

    def left_s(self) -> float:
        """Return in how many seconds to `check`."""
        return max(self._ends - time.monotonic(), 0.01)

    def check(self) -> None:
        """Raises `_Fails`, also for one that gets no processor for very long."""
        if time.monotonic() < self._ends:
            return
        ran_s = self._process.cpu_s() - self._cpu_s
        waits = ran_s < self._timeout_s / 2 and self._process.waits_for_processor()
        self._starved += 1
        if not waits:
            raise _Fails(f"did not answer within {self._timeout_s:g} s")
        if self._starved > _MOST_STARVED:
            raise _Fails("gets no processor", blames=False)
        self._ends = time.monotonic() + self._timeout_s
