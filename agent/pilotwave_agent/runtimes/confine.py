"""Take away from the current process what a model under test does not need.

What the kernel does not allow to take away is let be; the self-test's parent still has its clock.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pilotwave_agent.runtimes.cgroup import MOST_PROCESSES
from pilotwave_agent.runtimes.landlock import fence
from pilotwave_agent.runtimes.seccomp import filter_calls

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITIES_3 = 0x20080522
_FILE_LIMIT = 64 << 20


def die_with_parent(parent: int | None, by: int = signal.SIGKILL) -> None:
    """Let the kernel send this process a signal when `parent`, which started it, dies. It has no
    number here (None) if it is of another world of processes."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, by, 0, 0, 0)
    if parent is not None and os.getppid() != parent:  # it died before the line above
        os._exit(1)


@dataclass(frozen=True)
class Confinement:
    """What a model under test is to be held to.

    `memory_mb` bounds the data segment (0: unbounded): the address space itself would be the wrong
    measure, as runtimes map far more than they use. Files in `hidden` (the agent's own) are out of
    reach but for `shown`; only `writable` folders and devices can be written to. `filtered` has
    system calls filtered; `starts` says that the runtime starts programs, `talks` that it connects
    to one that is the model.
    """

    memory_mb: int
    cpu_s: int
    hidden: Path | None = None
    shown: tuple[Path, ...] = ()
    writable: tuple[Path, ...] = ()
    filtered: bool = True
    starts: bool = False
    talks: bool = False


def confine(wish: Confinement, took: set[str]) -> list[str]:
    """Set limits for this process and its children, beside what it `took` leave of before; return
    the names of all that hold."""
    with contextlib.suppress(OSError):
        os.nice(10)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_CPU, wish.cpu_s)
    _limit(resource.RLIMIT_FSIZE, _FILE_LIMIT)
    _limit(resource.RLIMIT_NPROC, _most_processes())
    if wish.memory_mb:
        _limit(resource.RLIMIT_DATA, wish.memory_mb << 20)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    held = set(took) | ({"memory"} if wish.memory_mb else set())
    shared_memory = wish.starts or "own_shared_memory" in held
    if fence(
        hidden=wish.hidden,
        shown=wish.shown,
        writable=wish.writable,
        shared_memory=shared_memory,
    ):
        held.add("no_files")
    if _drop_capabilities(libc):
        held.add("no_capabilities")
    own_world = "own_processes" in held
    if wish.filtered and filter_calls(connects=wish.talks, signals=wish.starts or own_world):
        held |= {"no_sockets", "offline"}
        if not own_world:
            held.add("no_signals")
    return sorted(held)


def confine_program(wish: Confinement, *, own_world: bool) -> None:
    """Take from a program that is the model what the process that talks to it needs."""
    if wish.filtered:
        filter_calls(signals=own_world)


NEEDED = {
    "offline": "the network",
    "no_files": "the agent's files",
    "no_sockets": "sockets of other programs",
    "no_survivors": "processes that outlive the test",
}
"""What has to hold before a format that runs code is opened, and what each keeps it from."""


def lacking(held: Iterable[str]) -> list[str]:
    """Name what a model would not be kept from."""
    there = set(held)
    if there & {"own_processes", "no_signals"}:
        there.add("no_survivors")  # the supervisor cannot be killed, and kills what is left
    return [words for name, words in NEEDED.items() if name not in there]


def _most_processes() -> int:
    """Return a limit on this user's processes and threads that leaves the model its share."""
    mine = 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{name}").st_uid == os.getuid():
                    mine += len(os.listdir(f"/proc/{name}/task"))
    return mine + 2 * MOST_PROCESSES


def _drop_capabilities(libc: ctypes.CDLL) -> bool:
    """Root without capabilities is held to the owner's rights on files, like anyone."""
    header = struct.pack("=Ii", _CAPABILITIES_3, 0)
    return bool(libc.capset(header, bytes(24)) == 0)


def _limit(kind: int, value: int) -> None:
    with contextlib.suppress(OSError, ValueError):
        _, hard = resource.getrlimit(kind)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, hard))


def peak_mb(pid: int | str = "self") -> float:
    """Return the most memory that a process has ever held, in MiB (VmHWM); 0 for one that is gone.

    `wait4` would report the parent's size where that was larger at the fork.
    """
    try:
        return _status(pid).get("VmHWM", 0) / 1024
    except (OSError, ValueError):
        return 0.0


def peak_of_children_mb() -> float:
    """Return the sum of it over the processes that this one started and that live.

    They are found by their parent, since /proc may be of another world than this process's, in
    which numbers of processes differ.
    """
    total = 0.0
    mine = _status("self").get("Pid")
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if _status(name).get("PPid") == mine:
                    total += peak_mb(name)
            except (OSError, ValueError):
                continue
    return total


def _status(pid: int | str) -> dict[str, int]:
    """Return the numbers that /proc says of a process."""
    found = {}
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
        for line in status:
            key, _, words = line.partition(":")
            if key in ("Pid", "PPid", "VmHWM"):
                found[key] = int(words.split()[0])
    return found
