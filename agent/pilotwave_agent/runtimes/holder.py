"""Hold a program and all that it starts to the life of this process: a probe, a hook.

    this process
      holder         waits; when this process dies, or asks, it kills all that is below it
        program      with what it starts, of whatever group or session

A program alone could be told to die with its parent; what it had started would go on. When the
program ends by itself, what it leaves running goes on, as anywhere.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Callable

from pilotwave_agent.runtimes.confine import die_with_parent
from pilotwave_agent.runtimes.supervise import end_all, end_as

_PR_SET_CHILD_SUBREAPER = 36
_SIGNALS = (signal.SIGCHLD, signal.SIGTERM)
_PATIENCE_S = 5.0


def held() -> Callable[[], None]:
    """Return what `subprocess.Popen` is to call in the new process (`preexec_fn`). Its child is the
    holder; `end` ends it with all below it."""
    parent = os.getpid()
    return lambda: _hold(parent)


def status_of(holder: subprocess.Popen[bytes], timeout_s: float) -> int | None:
    """Wait for the program's end and return its status; None: it took too long and was ended."""
    try:
        return holder.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if holder.returncode is None:
            end(holder)


def end(holder: subprocess.Popen[bytes]) -> None:
    """End a holder and all below it, now."""
    holder.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        holder.wait(_PATIENCE_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(holder.pid, signal.SIGKILL)
    holder.wait()


def _hold(parent: int) -> None:
    """Return in the program's process, below this one, which becomes the holder."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    die_with_parent(parent, signal.SIGTERM)
    program = os.fork()
    if program:
        try:
            # also the pipe by which `Popen` hears that the program was started
            os.closerange(3, min(os.sysconf("SC_OPEN_MAX"), 1 << 16))
            _wait(program)
        finally:
            os._exit(1)
    die_with_parent(os.getppid())
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _wait(program: int) -> None:
    while True:
        said = signal.sigwait(_SIGNALS)
        if said == signal.SIGTERM:
            end_all()
            return
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == program:
                    end_as(status)
                if not pid:
                    break
