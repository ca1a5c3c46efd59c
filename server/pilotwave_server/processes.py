"""Several server processes on one port: started together, replaced when they die or hang, ended
together.

Each reads its settings from the environment and makes its own app; they meet in the database.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from typing import Any

from prometheus_client.multiprocess import mark_process_dead

log = logging.getLogger(__name__)

Alive = Callable[[], None]
"""Called at least every second by what goes on working."""
Work = Callable[[socket.socket, Alive], None]
"""Serves on the socket until SIGTERM. Has to be found by name, since it is called elsewhere."""

# One that dies sooner than this has something wrong with it that a replacement would have too.
LIVED_S = 5.0
STOP_S = 20.0
LOOK_S = 0.5
# One that was alive, and then gave no sign of it for so long, is replaced.
HANG_S = 60.0


class _Life:
    """What is known of one process: since when it lives, on what it listens, its signs of life."""

    def __init__(self, listener: socket.socket, beats: Any) -> None:
        self.since = time.monotonic()
        self.listener = listener
        self._beats = beats
        self._seen = 0
        self._still = 0

    def silent_s(self) -> float:
        """Look, and return for how long there has been no sign. It is counted in looks: time in
        which this process stood still as well is nobody's silence. Before the first sign it is 0:
        starting takes as long as it takes."""
        if self._beats.value != self._seen:
            self._seen, self._still = self._beats.value, 0
        elif self._seen:
            self._still += 1
        return self._still * LOOK_S


class Processes:
    """A process for each of `listeners`, which does `work` on it.

    A replacement gets its predecessor's, with the connections that wait there.
    """

    def __init__(
        self,
        work: Work,
        listeners: Sequence[socket.socket],
        *,
        stop_s: float = STOP_S,
        hang_s: float = HANG_S,
    ) -> None:
        self._work, self._stop_s, self._hang_s = work, stop_s, hang_s
        # Not a fork: threads and locks of this process must not come along.
        self._context = multiprocessing.get_context("spawn")
        self._lives: dict[SpawnProcess, _Life] = {}
        for listener in listeners:
            self._start(listener)

    def _start(self, listener: socket.socket) -> None:
        beats = self._context.RawValue("L", 0)
        process = self._context.Process(target=run_worker, args=(self._work, listener, beats))
        process.start()
        self._lives[process] = _Life(listener, beats)

    def run(self, stopping: threading.Event, alive: Alive = lambda: None) -> bool:
        """Keep them going until `stopping` is set; False when one could not even start. `alive` is
        called at each look at them."""
        try:
            while not stopping.is_set():
                alive()
                wait([process.sentinel for process in self._lives], timeout=LOOK_S)
                self._kill_hanging()
                if not stopping.is_set() and not self._replace_dead():
                    return False
            return True
        finally:
            self._stop()

    def _kill_hanging(self) -> None:
        for process, life in self._lives.items():
            silent_s = life.silent_s()
            if silent_s >= self._hang_s:
                log.error("server process %s hung for %g s: killed", process.pid, silent_s)
                process.kill()
                process.join()

    def _replace_dead(self) -> bool:
        for process in [p for p in self._lives if not p.is_alive()]:
            life = self._lives.pop(process)
            lived = time.monotonic() - life.since
            log.error("server process %s ended with %s", process.pid, process.exitcode)
            if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
                mark_process_dead(process.pid)  # type: ignore[no-untyped-call]  # untyped there
            if lived < LIVED_S:
                return False
            self._start(life.listener)
        return True

    def _stop(self) -> None:
        for process in self._lives:
            process.terminate()
        deadline = time.monotonic() + self._stop_s
        for process in self._lives:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()


def run_worker(work: Work, listener: socket.socket, beats: Any) -> None:
    # Ctrl-C reaches every process of the terminal; the parent passes it on as SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()

    def alive() -> None:
        beats.value += 1

    work(listener, alive)


def end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(STOP_S)
        os.kill(os.getpid(), signal.SIGKILL)
