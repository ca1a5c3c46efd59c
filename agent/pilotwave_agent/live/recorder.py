"""Count what calls took, which failed, and what the application thinks of the answers.

Numbers go into mergeable sketches, one window for each version. A window waits in a file until the
agent takes it (by renaming it away); until then, the next one is added to it, so that an agent that
is away costs no space.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from pilotwave_agent.host.shared_folder import SharedFolder
from pilotwave_agent.live.generation import Version
from pilotwave_agent.live.heartbeat import replace_file
from pilotwave_protocol.names import check_metric, is_metric
from pilotwave_protocol.shadow import RESERVED_PREFIX
from pilotwave_protocol.sketch import Sketch

SCHEMA = "pilotwave/window/1"
MAX_METRICS = 16
MEASURED = ("latency_ms", "error")
OVERLAID_PREFIX = "overlay_"


class Window:
    """What happened with one version from `begun` to `ended` (epoch seconds)."""

    def __init__(self) -> None:
        self.begun = self.ended = time.time()
        self.sketches: dict[str, Sketch] = {}

    def add(self, metric: str, value: float, count: int = 1) -> None:
        """Count a number, `count` times. Raises ValueError for one that is none, or one name too
        many."""
        sketch = self.sketches.get(metric)
        if sketch is None:
            if len(self.sketches) >= MAX_METRICS:
                raise ValueError(f"{metric}: expected at most {MAX_METRICS} metrics a model")
            sketch = Sketch()
        sketch.add(value, count)
        self.sketches[metric] = sketch

    def merge(self, other: Window) -> None:
        """Count what `other` counted."""
        self.begun = min(self.begun, other.begun)
        self.ended = max(self.ended, other.ended)
        for metric, sketch in other.sketches.items():
            self.sketches.setdefault(metric, Sketch()).merge(sketch)

    def to_bytes(self, version: str) -> bytes:
        """Write the file that the agent takes."""
        words = {
            "schema": SCHEMA,
            "version": version,
            "begun": round(self.begun, 3),
            "ended": round(self.ended, 3),
            "sketches": {metric: s.to_plain() for metric, s in self.sketches.items()},
        }
        return json.dumps(words).encode() + b"\n"


class Recorder:
    """One process's windows. `call` and `value` may be called from any thread."""

    def __init__(self, folder: Path, id: str) -> None:
        self._folder, self._id = folder, id
        self._lock = threading.Lock()
        self._open: dict[Version, Window] = {}
        self._waiting: dict[Version, tuple[Path, Window]] = {}
        self._number = 0

    def call(self, version: Version, ms: float, *, failed: bool) -> None:
        """Count a call to a version."""
        with self._lock:
            window = self._window(version)
            window.add("error", float(failed))
            if not failed:
                window.add("latency_ms", ms)

    def value(self, version: Version, metric: str, value: float, *, overlaid: bool = False) -> None:
        """Count a number that the application gives; one about an `overlaid` answer under a name of
        its own, if there is room for that. Raises ValueError."""
        if check_metric(metric) in MEASURED:
            raise ValueError(f"{metric} is measured by the SDK itself; choose another name")
        if metric.startswith(RESERVED_PREFIX):
            raise ValueError(f"{metric}: {RESERVED_PREFIX} begins what shadow trials measure")
        if not overlaid:
            self.number(version, metric, value)
            return
        Sketch().add(value)  # no number is none, under any name
        name = f"{OVERLAID_PREFIX}{metric}"
        with self._lock:
            window = self._window(version)
            # half of the names are left to what is no overlay's
            has_room = len(window.sketches) < MAX_METRICS // 2 or name in window.sketches
            if has_room and is_metric(name):
                window.add(name, value)

    def number(self, version: Version, metric: str, value: float, count: int = 1) -> None:
        """Count a number of any metric, `count` times. Raises ValueError."""
        with self._lock:
            self._window(version).add(metric, value, count)

    def numbers(self, version: Version, values: Mapping[str, float]) -> None:
        """Count a number each of some metrics. Raises ValueError."""
        with self._lock:
            window = self._window(version)
            for metric, value in values.items():
                window.add(metric, value)

    def _window(self, version: Version) -> Window:
        window = self._open.get(version)
        if window is None:
            window = self._open[version] = Window()
        return window

    def flush(self) -> None:
        """Put what has been counted where the agent finds it."""
        with self._lock:
            taken, self._open = self._open, {}
        for version, window in taken.items():
            if not window.sketches:
                continue  # all that was given was refused
            window.ended = time.time()
            waiting = self._waiting.pop(version, None)
            if waiting and _take_back(waiting[0]):
                window.merge(waiting[1])
            self._number += 1
            path = self._folder / f"{self._id}.{self._number}.window"
            if replace_file(path, window.to_bytes(version.version)):
                self._waiting[version] = (path, window)
            else:
                self._keep(version, window)

    def _keep(self, version: Version, window: Window) -> None:
        """The disk said no: count it into the window that is open now."""
        with self._lock:
            self._window(version).merge(window)


def _take_back(path: Path) -> bool:
    """Take a window back that the agent has not taken. Who renames it first has it."""
    mine = f".{path.name}.{os.urandom(8).hex()}.mine"
    try:
        with SharedFolder(path.parent) as folder:
            os.rename(path.name, mine, src_dir_fd=folder.fd, dst_dir_fd=folder.fd)
            with contextlib.suppress(OSError):
                os.unlink(mine, dir_fd=folder.fd)
    except OSError:
        return False
    return True
