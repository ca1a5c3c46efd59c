"""Start, feed, watch and end the child process that tries a candidate (`shadow_child`).

Nothing here waits for the child but `wait`, which has an end. What the child says is a stranger's
word: short lines of JSON, with numbers that are checked by who uses them.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pilotwave_agent.host.shared_folder import remove_tree
from pilotwave_agent.live.shadow_tensors import TensorMemory

_MAX_LINE = 64 << 10
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]);"
    "from pilotwave_agent.live.shadow_child import main; main()"
)
_KEPT = (
    "PATH",
    "LD_LIBRARY_PATH",
    "LANG",
    "LC_ALL",
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
)


class Ended(Exception):
    """The child has ended, or says what no child says."""


class ShadowProcess:
    """One child. `send` and `line` are for whoever holds its owner's lock."""

    def __init__(self, spec: dict[str, Any], warmup: Mapping[str, Any] | None = None) -> None:
        """Start it; `warmup` are the inputs that it tries both versions on first. It dies with the
        thread that does so. Raises `OSError`, and `TypeError` for inputs that are no tensors."""
        self._scratch = tempfile.mkdtemp(prefix="pw-")
        self.memory = TensorMemory.create()
        self._wake_reader, self._wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._out, out = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._out, False)
        self._said, self._is_broken = b"", False
        try:
            first = self.memory.put(warmup) if warmup else None
            self._child = _start(out, self.memory.fd, self._scratch)
        except (OSError, TypeError):
            self._give_back()
            raise
        finally:
            os.close(out)
        mine = {"out": out, "memory": self.memory.fd, "parent": os.getpid(), "warmup": first}
        self.send({**spec, **mine})

    def send(self, words: dict[str, Any]) -> None:
        """Say something; at most one line waits to be answered, so that none has to wait."""
        with contextlib.suppress(OSError):
            os.write(self._child.stdin.fileno(), json.dumps(words).encode() + b"\n")  # type: ignore[union-attr]

    def wake(self) -> None:
        """End the sleep in `wait`."""
        with contextlib.suppress(OSError):
            os.write(self._wake_writer, b"!")

    def wait(self, seconds: float, *, for_answer: bool) -> None:
        """Sleep until `wake` is called, or there is an answer if that is waited for."""
        fds = [self._wake_reader, self._out] if for_answer else [self._wake_reader]
        if self._wake_reader in select.select(fds, [], [], max(seconds, 0.0))[0]:
            os.read(self._wake_reader, 1 << 10)

    def line(self) -> bytes | None:
        """Return the next line, None if none has come. Waits for nothing. Raises `Ended`."""
        if self._is_broken:
            raise Ended
        try:
            more = os.read(self._out, _MAX_LINE)
        except BlockingIOError:
            return None
        except OSError:
            more = b""
        line, found, rest = (self._said + more).partition(b"\n")
        self._said = rest if found else line
        # it says one thing at a time
        if not more or len(self._said) >= _MAX_LINE or (found and rest):
            raise self.broken()
        return line if found else None

    def broken(self) -> Ended:
        """Take nothing from it any more; return what is to be raised."""
        self._is_broken = True
        return Ended()

    def stage(self) -> bytes:
        """Return which version it says is at work."""
        with contextlib.suppress(OSError):
            return os.pread(self.memory.fd, 1, 0)
        return b""

    def cpu_s(self) -> float:
        """Return the seconds of processor time that it has taken."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = _stat(Path(f"/proc/{self._child.pid}/stat"))
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return 0.0

    def waits_for_processor(self) -> bool:
        """Say whether any of its threads could run, and does not get to."""
        for thread in Path(f"/proc/{self._child.pid}/task").glob("*/stat"):
            with contextlib.suppress(OSError, IndexError):
                if _stat(thread)[0] in ("R", "D"):
                    return True
        return False

    def end(self, patience_s: float = 0.0) -> str:
        """Kill it and what it started, give everything back, and say how it ended. One that has
        closed its end is given a moment to be gone by itself."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(patience_s)
        status = self._child.returncode
        with contextlib.suppress(OSError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()
        self._give_back()
        if status is None:
            return "was ended"
        return f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"

    def forget(self) -> None:
        """In a process that was forked from the application: leave the child to the parent."""
        with contextlib.suppress(OSError):
            self.memory.close()
        for fd in (self._wake_reader, self._wake_writer, self._out):
            with contextlib.suppress(OSError):
                os.close(fd)
        child = getattr(self, "_child", None)
        if child is not None and child.stdin:
            with contextlib.suppress(OSError):
                child.stdin.close()

    def _give_back(self) -> None:
        self.forget()
        with contextlib.suppress(OSError):
            remove_tree(self._scratch)


def _interpreter() -> str:
    """Return the Python to start: the application may be a program that has it inside, which would
    start itself again. Raises `OSError`."""
    beside = [os.path.join(sys.prefix, "bin", "python3")]
    for path in [sys.executable or "", *([] if getattr(sys, "frozen", False) else beside)]:
        if os.path.basename(path).startswith(("python", "pypy")) and os.path.exists(path):
            return path
    raise FileNotFoundError(errno.ENOENT, "no Python interpreter beside this program")


def _start(out: int, memory: int, scratch: str) -> subprocess.Popen[bytes]:
    path = json.dumps([os.path.abspath(p) for p in sys.path if p])
    return subprocess.Popen(
        [_interpreter(), "-I", "-c", _START, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        pass_fds=(out, memory),
        start_new_session=True,  # a signal to the application's terminal is none to it
        cwd=scratch,
        env={
            **{name: os.environ[name] for name in _KEPT if name in os.environ},
            "HOME": scratch,
            "TMPDIR": scratch,
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        },
    )


def _stat(path: Path) -> list[str]:
    return path.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
