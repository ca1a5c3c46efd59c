"""Capture inputs worth learning from, by the rules of the device's owner (`capture_rules`).

A case is sealed before it touches the disk. That and the writing is done by a thread of its own,
which takes a few cases at a time: an application never waits for it, and what comes faster than it
can be written is not captured. What goes wrong here never fails a call.
"""

from __future__ import annotations

import contextlib
import copy
import queue
import random
import threading
import time
import zlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

from pilotwave_agent.host.shared_folder import SharedFolder
from pilotwave_agent.live.capture_rules import (
    DRIFT_FILE,
    FILE,
    CaptureRules,
    parse_drifting,
    parse_rules,
)
from pilotwave_agent.live.generation import Version
from pilotwave_agent.live.told import Told
from pilotwave_agent.settings.capture import (
    DRIFT,
    LOW_SCORE,
    OVERRULED,
    SHADOW_DISAGREEMENT,
    UNIFORM,
)

ENDING = ".case"
MAX_WAITING = 64
"""So many cases of a model wait for the agent; while it is away, no more are captured."""
_MAX_QUEUED = 4
_DAY_S = 86_400.0


class _Job(NamedTuple):
    rules: CaptureRules
    version: Version
    reason: str
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    at: datetime


class Held(NamedTuple):
    """A copy of a call, kept until it is known whether it is captured."""

    version: Version
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]


class Capture:
    """One process's captured cases of one model. `folder` is `live/<model>`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rules = Told(folder.parent / FILE, parse_rules)
        self._drifting = Told(folder.parent / DRIFT_FILE, parse_drifting)
        self._lock = threading.Lock()
        self._jobs: queue.Queue[_Job | None] = queue.Queue(_MAX_QUEUED)
        self._thread: threading.Thread | None = None
        self._written = Budget()

    def copied(self, feeds: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Return a call's inputs as they are now, where its score may have them captured:
        applications often fill one buffer again and again."""
        rules = self._rules.current()
        if rules is None or not (LOW_SCORE in rules.reasons or self._drifts(rules)):
            return None
        with contextlib.suppress(Exception):
            return _copies(feeds)
        return None  # the runtime says what is wrong with them

    def called(self, version: Version, feeds: Mapping[str, Any], outputs: Any) -> None:
        """Capture a call, if it is one of the uniform share."""
        rules = self._rules.current()
        if rules and UNIFORM in rules.reasons and random.random() < rules.share:
            self._add(rules, version, UNIFORM, _copies(feeds), outputs)

    def unsure(self, version: Version, feeds: Mapping[str, Any], outputs: Any) -> None:
        """Capture a call whose confidence lay below the reference's, while inputs drift."""
        rules = self._rules.current()
        if rules and self._drifts(rules) == version.name:
            self._add(rules, version, DRIFT, _copies(feeds), outputs)

    def overruled(self, version: Version, feeds: Mapping[str, Any], outputs: Any) -> None:
        """Capture a call to whose input a bigger model gave another class."""
        rules = self._rules.current()
        if rules and OVERRULED in rules.reasons:
            self._add(rules, version, OVERRULED, _copies(feeds), outputs)

    @property
    def wants_disagreements(self) -> bool:
        """Say whether calls are captured which a candidate in shadow answers otherwise."""
        rules = self._rules.current()
        return rules is not None and SHADOW_DISAGREEMENT in rules.reasons

    def held(
        self, version: Version, feeds: Mapping[str, Any], outputs: Mapping[str, Any]
    ) -> Held | None:
        """Return a copy of a call on which a candidate is tried, where it may be captured."""
        if not self.wants_disagreements:
            return None
        return Held(version, _copies(feeds), _copies(outputs))

    def disagreed(self, held: Held, candidate: Mapping[str, Any]) -> None:
        """Capture a call which a candidate answered otherwise."""
        rules = self._rules.current()
        if rules and SHADOW_DISAGREEMENT in rules.reasons:
            both = {**held.outputs, **{f"candidate.{n}": a for n, a in candidate.items()}}
            self._add(rules, held.version, SHADOW_DISAGREEMENT, held.inputs, both)

    def scored(
        self, version: Version, inputs: Any, outputs: Any, score: float, *, unsure: bool
    ) -> None:
        """Capture a call whose answer was given a low score, or one below the reference's while
        inputs drift."""
        rules = self._rules.current()
        if rules is None or inputs is None:
            return
        if LOW_SCORE in rules.reasons and score < rules.below:
            self._add(rules, version, LOW_SCORE, inputs, outputs)
        elif unsure and self._drifts(rules) == version.name:
            self._add(rules, version, DRIFT, inputs, outputs)

    def _drifts(self, rules: CaptureRules) -> str | None:
        """Return the folder of the version whose inputs drift; None where none do, or the owner
        wants none of them."""
        found = self._drifting.current() if DRIFT in rules.reasons else None
        return found.get(self._folder.name) if found else None

    def close(self) -> None:
        """Write what waits, and end the thread."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            with contextlib.suppress(queue.Full):
                self._jobs.put(None, timeout=1.0)
            thread.join(5.0)

    def _add(
        self, rules: CaptureRules, version: Version, reason: str, inputs: Any, outputs: Any
    ) -> None:
        job = _Job(rules, version, reason, inputs, _copies(outputs), datetime.now(timezone.utc))
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, name="pilotwave-capture", daemon=True
                )
                self._thread.start()
        with contextlib.suppress(queue.Full):
            self._jobs.put_nowait(job)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            with contextlib.suppress(Exception):  # a case that cannot be written is no case
                self._write(job)

    def _write(self, job: _Job) -> None:
        rules = job.rules
        packed = zlib.compress(_packed(job), 1)
        share = rules.max_bytes_per_day // len(rules.reasons)
        if len(packed) > rules.max_case_bytes or not self._written.fits(
            job.reason, len(packed), share
        ):
            return
        name, raw = _sealed(job, packed)
        with SharedFolder(self._folder) as folder:
            waiting = folder.names(ENDING, MAX_WAITING)
            sizes = [found.st_size for n in waiting if (found := folder.stat(n))]
            if len(waiting) >= MAX_WAITING or sum(sizes) + len(raw) > rules.max_bytes:
                return
            folder.replace(name + ENDING, raw, sync=True)
        self._written.add(job.reason, len(packed))


class Budget:
    """How many bytes were written in the last day, by reason: hard inputs, which come in crowds,
    leave the uniform share its part."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._bytes: dict[str, int] = {}

    def fits(self, reason: str, size: int, most: int) -> bool:
        """Say whether so many more bytes are within the day's budget."""
        now = time.monotonic()
        if now - self._begun >= _DAY_S:
            self._begun, self._bytes = now, {}
        return self._bytes.get(reason, 0) + size <= most

    def add(self, reason: str, size: int) -> None:
        """Count what was written."""
        self._bytes[reason] = self._bytes.get(reason, 0) + size


def _copies(tensors: Mapping[str, Any]) -> dict[str, Any]:
    return {name: copy.copy(value) for name, value in tensors.items()}


def _packed(job: _Job) -> bytes:
    import numpy as np

    from pilotwave_agent.runtimes.casefile import as_safetensors

    arrays = {f"input.{name}": np.asarray(value) for name, value in job.inputs.items()}
    arrays |= {f"output.{name}": np.asarray(value) for name, value in job.outputs.items()}
    return as_safetensors(arrays)


def _sealed(job: _Job, packed: bytes) -> tuple[str, bytes]:
    """Return a case's id and its bytes."""
    from pilotwave_protocol.digest import sha256_hex
    from pilotwave_protocol.messages.case import Case, join_case
    from pilotwave_protocol.sealing import seal

    rules, version = job.rules, job.version
    case = Case(
        fleet=rules.fleet,
        device=rules.device,
        public_key=rules.public_key,
        reader=rules.reader,
        model=version.model,
        version=version.version,
        variant=version.variant,
        reason=job.reason,
        at=job.at,
    )
    sealed = seal(packed, rules.reader, about=case.about())
    case = replace(case, id=sha256_hex(sealed))
    return case.id, join_case(case.to_bytes(), sealed)
