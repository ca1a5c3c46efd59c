"""Start a model that is a program of its own, and end it.

Its children stay in our process group, so that whoever ends this process ends them as well.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory lies on Linux
_EXECUTABLE = 0o500
before_start: Callable[[], None] | None = None
"""What a program does first, set once by the process of a self-test: give up what it needs not."""


def runnable(file: Path, scratch: Path) -> Path:
    """Return `file`, or a copy of it in `scratch` that may be run where it may not itself."""
    if os.access(file, os.X_OK):
        return file
    copy = scratch / file.name
    shutil.copyfile(file, copy)
    copy.chmod(stat.S_IRUSR | _EXECUTABLE)
    return copy


def start(
    words: Sequence[str | Path],
    *,
    cwd: Path,
    out: IO[bytes] | int,
    environment: dict[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program. Raises `OSError` for one that the kernel will not run."""
    return subprocess.Popen(
        [str(word) for word in words],
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=out,
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        preexec_fn=before_start,
    )


def end(child: subprocess.Popen[Any], *, patience_s: float = 1.0) -> None:
    """Ask it to end, and after a while do not ask."""
    if child.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            child.terminate()
        try:
            child.wait(patience_s)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def ended(child: subprocess.Popen[Any]) -> str:
    """Say how a child ended: by a signal or with a status."""
    status = child.wait()
    if status < 0:
        return f"was ended by signal {-status}"
    return f"ended with status {status}"
