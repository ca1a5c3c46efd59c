"""Find what a tool started, and the memory that it all holds.

What leaves the tool's session and outlives its parent is not found.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

_PROC = Path("/proc")


def started_by(leader: int) -> set[int]:
    """Return the leader of a session, all processes in it, and all that they started."""
    parents, found = {}, {leader}
    for folder in _PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            # "PID (NAME) STATE PARENT GROUP SESSION …", and a name may hold what it likes
            words = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
            parents[int(folder.name)] = int(words[1])
            if int(words[3]) == leader:
                found.add(int(folder.name))
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def held_bytes(pid: int) -> int:
    """Return what a process holds in memory, without files that others may share; 0 if it ended."""
    with contextlib.suppress(OSError, ValueError):
        _, resident, shared = (_PROC / str(pid) / "statm").read_text().split()[:3]
        return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")
    return 0


def kill_started(leader: int) -> None:
    """End all that a process started; its own number may be another's by now, where it ended."""
    for pid in started_by(leader) - {leader}:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
