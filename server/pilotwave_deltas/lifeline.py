"""End this process when the one that started it ends, however that one ends.

Its standard input is a pipe that nothing is written to: its end is the parent's end, on any system.
Linux is asked to kill this process besides, since a long calculation keeps other threads waiting.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading

_PR_SET_PDEATHSIG = 1


def hold(reader: int = 0) -> None:
    """Watch the pipe from a thread from now on."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    threading.Thread(target=_end_with, args=(reader,), name="lifeline", daemon=True).start()


def _end_with(reader: int) -> None:
    while os.read(reader, 1):
        pass
    os._exit(1)
