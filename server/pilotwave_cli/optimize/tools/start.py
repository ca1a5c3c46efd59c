"""Run one tool: `python -m pilotwave_cli.optimize.tools.start TOOL`, its task as JSON on stdin.

It has no network, where the kernel lets a process leave it, and ends with its parent. What it has
to say goes to a descriptor of its own, as tools write to stdout and stderr what they please.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import importlib
import json
import os
import resource
import signal
import sys
from typing import Any

from pilotwave_cli.optimize.tools.task import Task

_PR_SET_PDEATHSIG = 1
_NEWUSER, _NEWNET = 0x10000000, 0x40000000
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_TAIL = 300


def confine(memory_mb: int, parent: int) -> bool:
    """Limit this process's memory, take its network, end it with its parent; say whether the kernel
    let it leave the network."""
    libc = ctypes.CDLL(None, use_errno=True)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (memory_mb << 20, memory_mb << 20))
    uid, gid = os.geteuid(), os.getegid()
    left = bool(libc.unshare(_NEWNET) == 0)
    if not left and (left := bool(libc.unshare(_NEWUSER | _NEWNET) == 0)):
        for path, words in (
            ("setgroups", "deny"),
            ("uid_map", f"{uid} {uid} 1"),
            ("gid_map", f"{gid} {gid} 1"),
        ):
            with contextlib.suppress(OSError), open(f"/proc/self/{path}", "w") as file:
                file.write(words)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # last, as a new user namespace clears it
    if os.getppid() != parent:
        os._exit(1)  # it had gone before the line above
    return left


def _words(error: BaseException) -> str:
    said = " ".join(str(error).split())
    name = type(error).__name__
    return f"{name}: {said[:_TAIL]}" if said else name


def main() -> None:
    """Run the tool that is named, as told on stdin."""
    told: dict[str, Any] = json.loads(sys.stdin.buffer.read())
    left = confine(told["memory_mb"], told["parent"])
    try:
        tool = importlib.import_module(f"pilotwave_cli.optimize.tools.{sys.argv[1]}")
        tool.make(Task.read(told["task"]))
        found: dict[str, Any] = {"ok": True, "network": not left}
    except BaseException as e:  # a tool may raise anything, and the parent must hear of it
        full = e.errno if isinstance(e, OSError) and e.errno in _FULL else None
        memory = isinstance(e, MemoryError)
        found = {"ok": False, "sentence": _words(e), "memory": memory, "full": full}
    os.write(told["fd"], json.dumps(found).encode())
    os._exit(0)  # a library may crash while it is torn down, when all that matters was said


if __name__ == "__main__":
    main()
