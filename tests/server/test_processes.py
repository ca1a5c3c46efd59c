"""Several server processes: one that dies or hangs is replaced, the others go on."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from pilotwave_server import processes
from pilotwave_server.processes import Alive, Processes

pytestmark = pytest.mark.timeout(120)
HANG_S = 3.0


def tell_its_number(listener: socket.socket, alive: Alive) -> None:
    """Work that answers with the number of its process, and lives."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    listener.settimeout(0.1)
    while True:
        alive()
        try:
            one, _ = listener.accept()
        except TimeoutError:
            continue
        with one:
            one.sendall(str(os.getpid()).encode())


def be_slow_to_start(listener: socket.socket, alive: Alive) -> None:
    """Work that gives no sign of life for longer than a hang may take, and then does."""
    time.sleep(HANG_S + 3)
    tell_its_number(listener, alive)


@contextmanager
def kept_going(work: processes.Work) -> Iterator[Callable[[], int]]:
    """A process that works; yields what asks for its number."""
    listener = socket.create_server(("127.0.0.1", 0))
    stopping = threading.Event()
    kept = Processes(work, [listener], hang_s=HANG_S)
    thread = threading.Thread(target=kept.run, args=(stopping,))
    thread.start()

    def number() -> int:
        with socket.create_connection(listener.getsockname(), timeout=60) as asked:
            return int(asked.recv(20))

    try:
        yield number
    finally:
        stopping.set()
        thread.join()
        listener.close()


def test_process_that_hangs_is_replaced() -> None:
    with kept_going(tell_its_number) as number:
        first = number()
        time.sleep(processes.LIVED_S)
        os.kill(first, signal.SIGSTOP)
        assert number() != first
        with pytest.raises(ProcessLookupError):
            os.kill(first, 0)


def test_process_that_is_slow_to_start_is_let_be() -> None:
    with kept_going(be_slow_to_start) as number:
        assert number() == number()
