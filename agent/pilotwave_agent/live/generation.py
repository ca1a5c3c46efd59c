"""Loaded versions and who uses them: a call enters one, and leaves the one that it entered.

A swap puts another generation in front; the one before is closed when its last call has left.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pilotwave_agent.live.errors import LiveError, NoVersion

if TYPE_CHECKING:
    from pilotwave_protocol.learning.overlaid import Overlaid


@dataclass(frozen=True)
class Version:
    """Which version answered. `name` is the name of its folder, unique for each set of bytes."""

    model: str
    version: str
    variant: str
    sha256: str
    name: str
    path: Path

    def __str__(self) -> str:
        return f"{self.model} {self.version} ({self.variant})"


class Answer(dict[str, Any]):
    """The outputs of one call by name. `version` is the one that made all of them, `inputs` what it
    was given, where the device captures what is scored low or keeps labelled examples. `overlay` is
    the digest of what this device added to the scores (docs/learning.md), `base` the version's own
    answer; without an overlay they are empty, and this answer."""

    __slots__ = ("_base", "inputs", "overlay", "version")

    def __init__(
        self,
        outputs: Mapping[str, Any],
        version: Version,
        inputs: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(outputs)
        self.version = version
        self.inputs = inputs
        self.overlay = ""
        self._base: Answer | None = None

    @property
    def base(self) -> Answer:
        """What the version itself answers."""
        return self._base or self

    def overlaid_by(self, overlay: Overlaid | None) -> Answer:
        """Return the answer with an overlay; this one where it does not fit."""
        outputs = overlay.answer(self) if overlay is not None else None
        if overlay is None or outputs is None:
            return self
        answer = Answer(outputs, self.version, self.inputs)
        answer.overlay, answer._base = overlay.about.digest, self
        return answer


class Generation:
    """One version in its runtime: one runner for all calls, or several that take turns."""

    def __init__(self, version: Version, runners: Sequence[Any]) -> None:
        self.version = version
        self.overlay: Overlaid | None = None
        """What this device adds to the scores of this version; it changes between two calls."""
        self.users = 0
        self.retired = False
        self.pid = os.getpid()
        self._all = tuple(runners)
        self._shared = runners[0] if getattr(runners[0], "concurrent", False) else None
        self._free = deque(runners)
        self._turn = threading.Condition()

    @property
    def is_behind(self) -> bool:
        """Say whether more calls are in flight than can be worked on at once."""
        return self.users > (os.cpu_count() or 1 if self._shared else len(self._all))

    @property
    def inputs(self) -> Sequence[Any]:
        """The model's inputs: name, dtype, shape (-1 may vary)."""
        return list(self._all[0].inputs)

    @property
    def outputs(self) -> Sequence[Any]:
        """The model's outputs, likewise."""
        return list(self._all[0].outputs)

    def run(self, feeds: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the outputs; a runtime that takes one call at a time is given one at a time."""
        if not self._all:
            raise LiveError(f"{self.version}: closed")
        if self._shared is not None:
            return dict(self._shared.run(feeds))
        with self._turn:
            while not self._free:
                self._turn.wait()
            runner = self._free.pop()
        try:
            return dict(runner.run(feeds))
        finally:
            with self._turn:
                self._free.append(runner)
                self._turn.notify()

    def close(self) -> None:
        """Give back what the runtime holds."""
        for runner in self._all:
            close(runner)
        self._all, self._shared = (), None
        self._free.clear()


def close(runner: Any) -> None:
    """Close a runner; one that cannot be closed well is let go."""
    try:
        runner.close()
    except Exception:
        return


class Serving:
    """The generation in front, and those that still have calls to finish."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self.lock = threading.Lock()
        self.front: Generation | None = None
        self._drained: list[Generation] = []
        self._wake = wake
        self.draining = 0

    def enter(self) -> Generation:
        """Count a call into the generation in front. Raises `NoVersion`."""
        with self.lock:
            front = self.front
            if front is None:
                raise NoVersion("no version is loaded")
            front.users += 1
            return front

    def leave(self, generation: Generation) -> None:
        """Count a call out of the generation that it entered."""
        with self.lock:
            generation.users -= 1
            done = generation.retired and generation.users == 0
            if done:
                self._drained.append(generation)
                self.draining -= 1
        if done:
            self._wake()

    def swap(self, new: Generation | None) -> None:
        """Put another generation in front, between two calls."""
        with self.lock:
            old, self.front = self.front, new
            if old is None:
                return
            old.retired = True
            if old.users:
                self.draining += 1
            else:
                self._drained.append(old)

    def close_drained(self) -> None:
        """Close what no call uses any more."""
        with self.lock:
            drained, self._drained = self._drained, []
        for generation in drained:
            generation.close()
