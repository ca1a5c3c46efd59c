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
from pathlib import Path

from pilotwave_agent.runtimes.landlock import fence

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_CAPABILITIES_3 = 0x20080522
_FILE_LIMIT = 64 << 20


def die_with_parent(parent: int) -> None:
    """Let the kernel kill this process when `parent`, which started it, dies."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)


def confine(
    *,
    memory_mb: int,
    cpu_s: int,
    hidden: Path | None = None,
    shown: Iterable[Path] = (),
    writable: Iterable[Path] = (),
) -> list[str]:
    """Set limits for this process and its children; return the names of those that took.

    `memory_mb` bounds the data segment (0: unbounded): the address space itself would be the wrong
    measure, as runtimes map far more than they use. Files in `hidden` (the agent's own) are out of
    reach but for `shown`; only `writable` folders and devices can be written to.
    """
    with contextlib.suppress(OSError):
        os.nice(10)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_CPU, cpu_s)
    _limit(resource.RLIMIT_FSIZE, _FILE_LIMIT)
    if memory_mb:
        _limit(resource.RLIMIT_DATA, memory_mb << 20)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    took = {
        "offline": _leave_network(libc),
        "no_files": fence(hidden=hidden, shown=shown, writable=writable),
        "no_capabilities": _drop_capabilities(libc),
    }
    return [name for name, done in took.items() if done]


def _leave_network(libc: ctypes.CDLL) -> bool:
    if not hasattr(libc, "unshare"):
        return False
    # root may do the first, anyone else the second where user namespaces are allowed
    ways = (_CLONE_NEWNET, _CLONE_NEWUSER | _CLONE_NEWNET)
    return any(libc.unshare(way) == 0 for way in ways)


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
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0
