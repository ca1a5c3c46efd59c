"""Stand above a model under test: let nothing of it outlive the test, and watch what it takes.

    supervisor         started by the self-test; it watches, and ends as the model ended
      first process    of a world of its own, where one is to be had: with it the kernel ends all
        model          returns from `below` and goes on with the test

Where there is no such world, the supervisor takes in what the model leaves behind and kills it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from pilotwave_agent.runtimes import cgroup, namespaces
from pilotwave_agent.runtimes.confine import die_with_parent

_PR_SET_CHILD_SUBREAPER = 36
_LOOK_EVERY_S = 0.02
_SIGNALS = (signal.SIGCHLD, signal.SIGTERM)
_MAX_SCRATCH = 1 << 30
_LOOK_AT_FILES_EVERY = 25
_PATIENCE_S = 5.0


@dataclass
class Supervised:
    """What the supervisor watches, and what is to be done first inside."""

    memory_mb: int
    scratch: Path
    furnish: Callable[[], set[str]] = set


def below(parent: int, world: Supervised) -> set[str]:
    """Go on in a process below a supervisor, which this one becomes. Returns in the model's process
    what the kernel granted. Has to be called while this process has one thread."""
    die_with_parent(parent)
    box = cgroup.make(world.memory_mb)
    took = namespaces.leave() | box.took
    own_world = "own_processes" in took
    if not own_world:
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    # what leaving changed of this process's rights took that back; it has to clear up now
    die_with_parent(parent, signal.SIGTERM)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        _supervise(child, reader, world, box, own_world=own_world)
    os.close(reader)
    die_with_parent(None if own_world else os.getppid())
    box.enter()
    if own_world:
        took |= world.furnish()
        model = os.fork()
        if model:
            _be_first(model, writer)
    os.close(writer)
    if not own_world:
        os.setsid()  # a signal to its own group reaches no supervisor
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return took


def _be_first(model: int, writer: int) -> NoReturn:
    """Take in what is left behind until the model has ended; all else ends with this process."""
    while True:
        pid, status = os.wait()
        if pid == model:
            os.write(writer, str(status).encode())
            os._exit(0)


def _supervise(
    child: int, reader: int, world: Supervised, box: cgroup.Box, *, own_world: bool
) -> NoReturn:
    status = _watched(child, world)
    with contextlib.suppress(ValueError):
        status = int(os.read(reader, 20)) if own_world else status
    end_all(own_world=own_world)
    for _ in range(50):
        box.remove()
        if not box.alive():
            break
        time.sleep(0.01)
    end_as(status)


def _watched(child: int, world: Supervised) -> int:
    """Wait for the child's end and return its status; it is killed at a request to end, or when it
    takes more than it may."""
    looks, ends = 0, False
    while True:
        said = signal.sigtimedwait(_SIGNALS, _LOOK_EVERY_S)
        ends = ends or (said is not None and said.si_signo == signal.SIGTERM)
        looks += 1
        if ends or _too_much(world, looks):
            for pid in (*descendants(os.getpid()), child):
                _kill(pid)
            return os.waitpid(child, 0)[1]
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status


def _too_much(world: Supervised, looks: int) -> bool:
    """Say whether the model takes more memory, processes or files than it may. The limits that it
    was given count neither shared memory nor what several processes have together."""
    below = descendants(os.getpid())
    if len(below) > cgroup.MOST_PROCESSES:
        return True
    if world.memory_mb and sum(map(_held_kb, below)) > world.memory_mb << 10:
        return True
    return looks % _LOOK_AT_FILES_EVERY == 0 and _size(world.scratch) > _MAX_SCRATCH


def _held_kb(pid: int) -> int:
    """Return what a process holds that is not a file's: its own memory and shared memory."""
    held = 0
    with contextlib.suppress(OSError, ValueError), open(f"/proc/{pid}/status", "rb") as status:
        for line in status:
            if line.startswith((b"RssAnon:", b"RssShmem:")):
                held += int(line.split()[1])
    return held


def _size(folder: Path) -> int:
    """Return what files in a folder take on the disk."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(root, name)).st_blocks * 512
    return total


def descendants(pid: int) -> list[int]:
    """Return the processes that a process started, and those that these did."""
    found: list[int] = []
    left = [pid]
    while left and len(found) <= 4 * cgroup.MOST_PROCESSES:
        for child in _children(left.pop()):
            found.append(child)
            left.append(child)
    return found


def _children(pid: int) -> Iterator[int]:
    known = False
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{thread}/children") as said:
                known = True
                yield from map(int, said.read().split())
    if not known:
        yield from _children_by_parent(pid)


def _children_by_parent(pid: int) -> Iterator[int]:
    """Find them by looking at all processes: not every kernel lists children."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                said = Path(f"/proc/{name}/stat").read_bytes()
                if int(said.rpartition(b")")[2].split()[1]) == pid:
                    yield int(name)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def end_all(*, own_world: bool = False) -> None:
    """Kill what is left below this process; what forks meanwhile is found the next time."""
    until = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until:
        left = [] if own_world else descendants(os.getpid())
        for pid in left:
            _kill(pid)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not left:
            return


def end_as(status: int) -> NoReturn:
    """End as the model did, so that who started this process sees how."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
        os.kill(os.getpid(), number)
        time.sleep(_PATIENCE_S)
    os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 1)
