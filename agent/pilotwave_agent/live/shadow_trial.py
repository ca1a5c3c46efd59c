"""Try one candidate beside one serving version, in a child process, for as long as it is asked for.

A call that is sampled hands its inputs over and goes on; a thread waits for the figures. One input
is with the child at a time: what comes meanwhile is counted and dropped, so nothing waits in line.
A child that crashes or hangs counts as an error of the candidate, is started again after a pause
that grows, and is given up when it comes to nothing.
"""

from __future__ import annotations

import contextlib
import json
import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from pilotwave_agent.live.capture import Capture, Held
from pilotwave_agent.live.generation import Generation, Version
from pilotwave_agent.live.links import ModelLinks
from pilotwave_agent.live.loader import LoadOptions, version_of, words_of
from pilotwave_agent.live.recorder import Recorder
from pilotwave_agent.live.shadow_limits import ShadowLimits
from pilotwave_agent.live.shadow_orders import Judges, Pair
from pilotwave_agent.live.shadow_process import Ended, ShadowProcess
from pilotwave_agent.live.shadow_tensors import end_of
from pilotwave_agent.live.shadow_watch import Fails, Watch
from pilotwave_protocol import shadow

MAX_ENDS = 4
"""So many children in a row that come to nothing, and the candidate is given up."""
_GOOD_CALLS = 20  # a child that answered so many came to something
_LONGEST_PAUSE_S = 60.0
_LOOK_EVERY_S = 1.0
_LEAST_TIMEOUT_S = 1.0
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
        judges: Judges,
        capture: Capture,
        memory_mb: int,
    ) -> None:
        self.pair = pair
        self.sentence = ""
        self._links, self._options, self._judges = place, options, judges
        self._memory_mb, self._recorder, self._capture = memory_mb, recorder, capture
        about = place.about(pair.orders.name)  # may raise OSError, ValueError, TypeError
        self._candidate = version_of(about, pair.orders.name, place)
        self._runtime = about.runtime
        self._share = pair.orders.terms.share
        self._limits = ShadowLimits(pair.orders.terms.cpu, time.monotonic())
        self._lock = threading.Lock()
        self._running: ShadowProcess | None = None
        self._process: ShadowProcess | None = None  # that is ready for calls
        self._sent_at: float | None = None
        self._held: Held | None = None  # the call that is with the child, if it may be captured
        self._answers: list[bytes] = []
        self._sampled = {False: 0, True: 0}  # how many inputs were dropped, and handed over
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
        taken = False
        try:
            taken = self._has_room(generation) and self._hand(generation.version, feeds, outputs)
        except Exception:  # whatever it is, the call was answered
            taken = False
        finally:
            self._sampled[taken] += 1
            self._lock.release()
        if taken:
            self._recent.append(ms)

    def _has_room(self, generation: Generation) -> bool:
        """Say whether there is room for a call. The lock is held. Raises `Ended`."""
        if self._process is None:
            return False
        if self._sent_at is not None and not self._judges and self._held is None:
            self._note_answer(self._process)  # what it says is for the thread to read
        free = self._sent_at is None and not generation.is_behind
        return free and self._limits.has_room(time.monotonic())

    def _hand(self, version: Version, feeds: Mapping[str, Any], outputs: Mapping[str, Any]) -> bool:
        process = self._process
        assert process is not None
        # a copy beside the memory that the child may write to
        held = self._capture.held(version, feeds, outputs)
        returns = bool(self._judges) or held is not None
        words: dict[str, Any] = {"inputs": process.memory.put(feeds), "returns": returns}
        if not self._both:
            words["outputs"] = process.memory.put(outputs, end_of(words["inputs"]))
        process.send(words)
        self._sent_at, self._held = time.monotonic(), held
        return True

    def _note_answer(self, process: ShadowProcess) -> None:
        line = process.line()
        if line is not None:
            self._answers.append(line)
            self._sent_at = None

    def _count(self, metric: str, value: float) -> None:
        self._recorder.number(self._candidate, metric, value)

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
            process = ShadowProcess(self._spec(), self._options.warmup)
        except (OSError, TypeError) as e:
            why = getattr(e, "strerror", None) or words_of(e)
            self.sentence = f"its process cannot be started: {why}"
            return False
        patience_s, said, blames, stage = 0.0, "", True, ""
        with self._lock:
            self._running = process
        try:
            self._converse(process)
            return False
        except Ended:
            patience_s = 1.0
        except Fails as e:
            said, blames, stage = str(e), e.blames, e.stage
        except Exception as e:  # what a child says may be anything
            said = f"answers what nobody understands: {words_of(e)}"
        finally:
            with self._lock:
                self._running = self._process = self._sent_at = self._held = None
                self._answers = []
            self._count_sampled()
            stage = stage or process.stage().decode("ascii", "replace")
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
            "checks": self._options.check is not None,
            "devices": list(self._options.devices),
            "timeout_s": self._options.timeout_s,
            "memory_mb": self._memory_mb,
        }

    def _converse(self, process: ShadowProcess) -> None:
        """Wait for the child to be ready, then for its answers. Raises `Ended`, `Fails`."""
        watch = Watch(process)
        watch.begin(time.monotonic(), self._options.timeout_s * 2)
        while not self._ends.is_set():
            self._limits.look(time.monotonic())
            is_ready = self._process is not None
            process.wait(
                min(watch.left_s(), _LOOK_EVERY_S),
                for_answer=not is_ready or self._needs_outputs(),
            )
            if not is_ready:
                self._see_if_ready(process)
            else:
                self._read_answers(process)
            sent_at = self._sent_at
            if sent_at is not None:
                watch.begin(sent_at, self._timeout_s())
            elif self._process is not None:
                watch.over()
            watch.check()

    def _needs_outputs(self) -> bool:
        """Say whether an answer is for the thread alone to read, as soon as it comes."""
        return bool(self._judges) or self._capture.wants_disagreements

    def _see_if_ready(self, process: ShadowProcess) -> None:
        line = process.line()
        if line is None:
            return
        words = _words(process, line)
        if "refused" in words:
            raise Fails(f"cannot be loaded: {str(words['refused'])[:400]}")
        self._check(process, words.get("checked"))
        with self._lock:
            self._process, self._both = process, words.get("serving") is True

    def _check(self, process: ShadowProcess, words: Any) -> None:
        """Refuse a candidate that the application would refuse once it is switched to. Raises
        `Fails`."""
        if self._options.check is None:
            return
        try:
            if self._options.check(process.memory.get(words, _MAX_OUTPUTS)) is not False:
                return
            said = "is refused by the application's check"
        except Exception as e:  # the application's own, and what a child says may be anything
            said = f"is refused by the application's check: {words_of(e)}"
        raise Fails(said, stage=_CANDIDATE)

    def _read_answers(self, process: ShadowProcess) -> None:
        """Count what the child has answered. Raises `Ended`."""
        with self._lock:
            answers, self._answers = self._answers, []
        for answer in answers:
            self._take(process, _words(process, answer), None)
            time.sleep(0)  # between two, calls go on
        with self._lock:
            line, held = process.line() if self._sent_at is not None else None, self._held
        if line is not None:
            self._take(process, _words(process, line), held)
            with self._lock:
                self._sent_at = self._held = None
        self._count_sampled()

    def _count_sampled(self) -> None:
        with self._lock:
            sampled, self._sampled = self._sampled, {False: 0, True: 0}
        for taken, count in sampled.items():
            if count:
                self._recorder.number(self._candidate, shadow.DROPPED, float(not taken), count)

    def _timeout_s(self) -> float:
        """Return ten times what nearly all calls take, at least a second."""
        recent = sorted(self._recent)
        p95 = recent[int(0.95 * len(recent))] if recent else 0.0
        return max(p95 / 1000 * 10, _LEAST_TIMEOUT_S)

    def _take(self, process: ShadowProcess, words: dict[str, Any], held: Held | None) -> None:
        """Count the figures of a call."""
        if words.get("failed") == _CANDIDATE:
            self.sentence = f"the candidate: {str(words.get('sentence'))[:400]}"
            self._count(shadow.ERROR, 1.0)
        elif "failed" in words:
            self.sentence = f"the serving version: {str(words.get('sentence'))[:400]}"
        else:
            self._count_pair(process, words)
            if held is not None and words.get("disagree") is True:
                self._offer_case(process, words.get("outputs"), held)
        self._answered += 1
        with self._lock:
            self._limits.used(_number(words.get("cpu_s")) or 0.0)

    def _count_pair(self, process: ShadowProcess, words: dict[str, Any]) -> None:
        if self._judges:
            words |= self._by_application(process, words.get("outputs"))
        found = {metric: _number(words.get(word)) for word, metric in _MEASURED.items()}
        ours, theirs = _number(words.get("serving_ms")), _number(words.get("candidate_ms"))
        if ours and theirs:
            self._recent.append(ours)
            found[shadow.LATENCY_RATIO] = _number(theirs / ours)
        numbers = {metric: value for metric, value in found.items() if value is not None}
        self._recorder.numbers(self._candidate, {shadow.ERROR: 0.0, **numbers})

    def _offer_case(self, process: ShadowProcess, words: Any, held: Held) -> None:
        """Offer a call to the capture with both answers; without the candidate's it is no case."""
        with contextlib.suppress(OSError, TypeError, ValueError):
            _, theirs = words
            self._capture.disagreed(held, process.memory.get(theirs, _MAX_OUTPUTS))

    def _by_application(self, process: ShadowProcess, words: Any) -> dict[str, Any]:
        """Return what the application itself finds of both answers, in place of the child's."""
        compare, score = self._judges.compare, self._judges.score
        found: dict[str, Any] = {} if score is None else {"score_change": None}
        try:
            ours, theirs = (process.memory.get(w, _MAX_OUTPUTS) for w in words)
        except (OSError, TypeError, ValueError):
            # a candidate that answers with more than anybody asked for
            return found if compare is None else {**found, "disagree": True}
        if compare is not None:
            found["disagree"] = self._asked("compare", lambda: not compare(ours, theirs))
        if score is not None:
            change = self._asked("score", lambda: float(score(theirs)) - float(score(ours)))
            found["score_change"] = change
        return found

    def _asked(self, what: str, ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except Exception as e:
            self.sentence = f"the application's {what}: {type(e).__name__}: {e}"[:400]
            return None


def _words(process: ShadowProcess, line: bytes) -> dict[str, Any]:
    with contextlib.suppress(ValueError, RecursionError):
        words = json.loads(line)
        if isinstance(words, dict):
            return words
    raise process.broken()


def _number(said: object) -> float | None:
    """Return a child's word as a number, None for what is none."""
    with contextlib.suppress(OverflowError):
        if isinstance(said, (int, float)) and math.isfinite(said):
            return float(said)
    return None
