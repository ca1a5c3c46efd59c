"""Several server processes on one port: started together, replaced when they die, ended together.

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

from prometheus_client.multiprocess import mark_process_dead

log = logging.getLogger(__name__)

Work = Callable[[socket.socket], None]
"""Serves on the socket until SIGTERM. Has to be found by name, since it is called elsewhere."""

# One that dies sooner than this has something wrong with it that a replacement would have too.
LIVED_S = 5.0
STOP_S = 20.0


class Processes:
    """A process for each of `listeners`, which does `work` on it.

    A replacement gets its predecessor's, with the connections that wait there.
    """

    def __init__(
        self, work: Work, listeners: Sequence[socket.socket], *, stop_s: float = STOP_S
    ) -> None:
        self._work, self._stop_s = work, stop_s
        # Not a fork: threads and locks of this process must not come along.
        self._context = multiprocessing.get_context("spawn")
        self._since: dict[SpawnProcess, tuple[float, socket.socket]] = {}
        for listener in listeners:
            self._start(listener)

    def _start(self, listener: socket.socket) -> None:
        process = self._context.Process(target=run_worker, args=(self._work, listener))
        process.start()
        self._since[process] = (time.monotonic(), listener)

    def run(self, stopping: threading.Event) -> bool:
        """Keep them going until `stopping` is set; False when one could not even start."""
        try:
            while not stopping.is_set():
                wait([process.sentinel for process in self._since], timeout=0.5)
                if not stopping.is_set() and not self._replace_dead():
                    return False
            return True
        finally:
            self._stop()

    def _replace_dead(self) -> bool:
        for process in [p for p in self._since if not p.is_alive()]:
            since, listener = self._since.pop(process)
            lived = time.monotonic() - since
            log.error("server process %s ended with %s", process.pid, process.exitcode)
            if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
                mark_process_dead(process.pid)  # type: ignore[no-untyped-call]  # untyped there
            if lived < LIVED_S:
                return False
            self._start(listener)
        return True

    def _stop(self) -> None:
        for process in self._since:
            process.terminate()
        deadline = time.monotonic() + self._stop_s
        for process in self._since:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()


def run_worker(work: Work, listener: socket.socket) -> None:
    # Ctrl-C reaches every process of the terminal; the parent passes it on as SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()
    work(listener)


def end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(STOP_S)
        os.kill(os.getpid(), signal.SIGKILL)
