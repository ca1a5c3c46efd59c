"""Run a tool in a child process that it may hang, crash or bloat, and say how that went.

It has limits of memory and time, no network, and a folder of its own. It and all that it started
end with this process, and at the end of its time.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pilotwave_cli.errors import CliError
from pilotwave_cli.optimize.recipes import OPTIONS, Recipe
from pilotwave_cli.optimize.started import held_bytes, kill_started, started_by

_START = "pilotwave_cli.optimize.tools.start"
_TAIL = 2000
_NO_ROOM = 1 << 20
_LOOK_S = 0.5
_QUIET = {
    "NNCF_DISABLE_TELEMETRY": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "PYTHONWARNINGS": "ignore",
    "MPLBACKEND": "agg",
}


@dataclass(frozen=True)
class Limits:
    """What one step may take: seconds, and MiB of memory with all that it starts."""

    timeout_s: float = 1800.0
    memory_mb: int = 8192


class _Over(Enum):
    """The limit that ended a tool."""

    TIME = "time"
    MEMORY = "memory"


class ToolFailed(CliError):
    """A tool did not make what it should; the sentence is the row's."""


def run_tool(recipe: Recipe, task: Mapping[str, Any], limits: Limits) -> bool:
    """Have the tool write the task's `out`; say whether it had the network. Raises `ToolFailed`,
    `OSError` where the disk is full: that is no fault of the tool, and the next would meet it
    too."""
    missing = [name for name in recipe.modules if find_spec(name) is None]
    if missing:
        raise ToolFailed(f"{missing[0]} is not installed: pip install 'pilotwave[{recipe.extra}]'")
    if lacking := [name for name in recipe.options if not task["options"].get(name)]:
        option = lacking[0].replace("_", "-")
        raise ToolFailed(f"it needs --{option}: {OPTIONS[lacking[0]]}")
    words = [sys.executable, "-I", "-m", _START, recipe.tool]
    out = Path(task["out"])  # what a tool leaves on its way may be as large as what it makes
    with (
        tempfile.TemporaryDirectory(prefix=".tool-", dir=out.parent.absolute()) as scratch,
        _pipe() as (reader, writer),
    ):
        told = {"task": task, "memory_mb": limits.memory_mb, "parent": os.getpid(), "fd": writer}
        with tempfile.TemporaryFile(dir=scratch) as noise:
            child = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=noise,
                stderr=noise,
                pass_fds=(writer,),
                start_new_session=True,
                env=_environment(scratch),
                cwd=scratch,
            )
            over = _ended(child, json.dumps(told).encode(), limits)
            noise.seek(max(noise.seek(0, os.SEEK_END) - _TAIL, 0))
            tail = " ".join(noise.read().decode(errors="replace").split())[-300:]
        said = _said(reader)
        _check_disk(out, said)
        _check(child.returncode, over, said, tail, limits)
    if not out.is_file():
        raise ToolFailed("it ended without an error and wrote no file")
    return bool(said.get("network"))


def _check_disk(out: Path, said: dict[str, Any]) -> None:
    if (full := said.get("full")) is not None:
        raise OSError(full, os.strerror(full), str(out))
    if not said.get("ok"):
        check_room(out.parent)


def check_room(folder: Path) -> None:
    """Raise `OSError` where next to nothing can be written, there or where temporary files go: what
    failed then failed of that."""
    for place in (folder, Path(tempfile.gettempdir())):
        if shutil.disk_usage(place).free < _NO_ROOM:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(place))


def _check(
    status: int, over: _Over | None, said: dict[str, Any], tail: str, limits: Limits
) -> None:
    if over is _Over.TIME:
        raise ToolFailed(f"no end within {limits.timeout_s:g} s (--timeout)")
    if over is _Over.MEMORY or said.get("memory") or status == -signal.SIGKILL:
        raise ToolFailed(f"it needs more than {limits.memory_mb} MiB of memory (--memory)")
    if said.get("ok") is True:
        return
    if said:
        raise ToolFailed(str(said.get("sentence")))
    how = signal.Signals(-status).name if status < 0 else f"status {status}"
    raise ToolFailed(f"ended with {how}: {tail}")


def _environment(scratch: str) -> dict[str, str]:
    """Nothing of ours but where programs and libraries are."""
    kept = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL")
    here = {name: os.environ[name] for name in kept if name in os.environ}
    return {**here, **_QUIET, "HOME": scratch, "TMPDIR": scratch}


def _ended(child: subprocess.Popen[bytes], told: bytes, limits: Limits) -> _Over | None:
    """Wait for the end of the child, and end all that it started; say which limit it went over."""
    ends = time.monotonic() + limits.timeout_s
    try:
        _tell(child, told)
        while True:
            left = ends - time.monotonic()
            if left <= 0:
                return _Over.TIME
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(min(_LOOK_S, left))
                return None
            if sum(map(held_bytes, started_by(child.pid))) > limits.memory_mb << 20:
                return _Over.MEMORY
    finally:
        kill_started(child.pid)
        child.kill()
        child.wait()


def _tell(child: subprocess.Popen[bytes], told: bytes) -> None:
    assert child.stdin is not None
    with contextlib.suppress(BrokenPipeError), child.stdin as stdin:
        stdin.write(told)


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    try:
        yield reader, writer
    finally:
        os.close(reader)
        os.close(writer)


def _said(reader: int) -> dict[str, Any]:
    try:
        found = json.loads(os.read(reader, 1 << 16))
    except (BlockingIOError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
