"""Background work of a server process: things that start and stop with it.

What the work is belongs to the slices; here is only how it is kept going. A failure is logged and
counted, never the end of the worker.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Protocol

from prometheus_client import Counter

log = logging.getLogger(__name__)
FAILURES = Counter(
    "pilotwave_worker_failures_total",
    "Background work that failed and is tried again, by its name.",
    ["worker"],
    registry=None,
)


_NICE = 10
REST_MOST_S = 10.0


def step_back() -> None:
    """Let the rest of the machine go before this thread, where the system tells threads apart."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


class Worker(Protocol):
    """Started when the server starts, stopped (and waited for) when it ends."""

    def start(self) -> None: ...

    def stop(self) -> None: ...


class Periodic:
    """Calls `work` every `interval_s` seconds on a thread of its own, and once more at the end
    when `at_stop` is set. `wake()` calls it early, though never before it has rested `rest` times
    as long as it worked: so it takes a bounded share of the machine, however much there is to do.
    Time in which it only waited (for a lock, a disk, other programs) makes it rest for
    `rest_most_s` at most. What `can_wait` lets the rest of the machine go before it.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], object],
        *,
        interval_s: float,
        at_stop: bool = False,
        rest: float = 0.0,
        rest_most_s: float = REST_MOST_S,
        can_wait: bool = False,
    ) -> None:
        self.failures = 0
        self._name = name
        self._work = work
        self._interval_s = interval_s
        self._at_stop = at_stop
        self._rest = rest
        self._rest_most_s = rest_most_s
        self._can_wait = can_wait
        self._woken = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def wake(self) -> None:
        self._woken.set()

    def stop(self) -> None:
        if self._thread is None:
            return
        self._stopping.set()
        self._woken.set()
        self._thread.join()
        self._thread = None
        if self._at_stop:
            self._once()

    def _run(self) -> None:
        if self._can_wait:
            step_back()
        while True:
            self._woken.wait(self._interval_s)
            self._woken.clear()
            if self._stopping.is_set():
                return
            began, computed = time.monotonic(), time.thread_time()
            self._once()
            if self._rest:
                waited = min(self._rest * (time.monotonic() - began), self._rest_most_s)
                self._stopping.wait(max(self._rest * (time.thread_time() - computed), waited))

    def _once(self) -> None:
        try:
            self._work()
        except Exception:
            self.failures += 1
            FAILURES.labels(self._name).inc()
            log.exception("%s failed; it will be tried again", self._name)
