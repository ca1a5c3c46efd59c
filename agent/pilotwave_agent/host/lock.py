"""Hold a lock file: one resident agent, and one process at a time that changes the journal."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from pilotwave_protocol.errors import PilotwaveError

_DIGITS = 20


class Held(PilotwaveError):
    """Another process holds the lock."""

    code = "already_running"


@contextlib.contextmanager
def held(path: Path, what: str, *, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the lock at `path`, which then names this process. Raises `Held`, `OSError`."""
    fd = _open(path)
    try:
        _lock(fd, f"{what} is already running (process {holder(path) or 'unknown'})", wait_s)
        with contextlib.suppress(OSError):  # a disk that says no: the lock holds, and names nobody
            os.pwrite(fd, str(os.getpid()).encode().ljust(_DIGITS), 0)
        yield
    finally:
        os.close(fd)


def _open(path: Path) -> int:
    flags = os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, flags | os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as e:
        if e.errno != errno.EROFS:
            raise
        return os.open(path, flags | os.O_RDONLY)


def _lock(fd: int, sentence: str, wait_s: float) -> None:
    ends = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as e:
            if time.monotonic() >= ends:
                raise Held(sentence) from e
        time.sleep(0.02)


def holder(path: Path) -> int | None:
    """Return the process that holds the lock at `path`, None if none does."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(fd, _DIGITS, 0).strip()
        known = text.isdigit() and not os.fstatvfs(fd).f_flag & os.ST_RDONLY
        return int(text) if known else 0  # on a read-only disk the number is an older one
    finally:
        os.close(fd)
    return None


def interrupt(path: Path) -> None:
    """End the process that holds the lock at `path`; its work goes on where it was, later."""
    pid = holder(path)
    if pid:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGTERM)
