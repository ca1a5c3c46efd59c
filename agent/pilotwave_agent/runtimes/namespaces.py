"""Give a model under test a world of its own: processes, network, shared memory, mounts.

What the kernel refuses (inside a container, under a stricter service, without user namespaces) is
let be, and the names of what it granted are returned. https://man7.org/linux/man-pages/man7/namespaces.7.html
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterable
from pathlib import Path

_NEWNS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET = (
    0x00020000,
    0x08000000,
    0x10000000,
    0x20000000,
    0x40000000,
)
_WORLD = _NEWPID | _NEWIPC | _NEWNET
# root may do the first, anyone else the others where user namespaces are allowed
_WAYS = (
    _WORLD,
    _NEWUSER | _WORLD,
    _NEWUSER | _NEWPID | _NEWNET,  # our own service is granted these
    _NEWNET,
    _NEWUSER | _NEWNET,
)
_RECURSIVELY, _PRIVATELY, _BIND = 0x4000, 1 << 18, 0x1000
_NOSUID, _NODEV, _NOEXEC = 2, 4, 8
_SHM_SIZE_MB = 256


def leave() -> set[str]:
    """Leave the network; and let the next child be the first process of a world of its own.

    Has to be called while this process has one thread.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "unshare"):
        return set()
    uid, gid = os.geteuid(), os.getegid()
    for way in _WAYS:
        if libc.unshare(way) == 0:
            if way & _NEWUSER:
                _keep_names(uid, gid)
            return {"offline"} | ({"own_processes"} if way & _NEWPID else set())
    return set()


def _keep_names(uid: int, gid: int) -> None:
    """Be the same user and group inside a user namespace as outside."""
    for path, words in (
        ("/proc/self/setgroups", "deny"),
        ("/proc/self/uid_map", f"{uid} {uid} 1"),
        ("/proc/self/gid_map", f"{gid} {gid} 1"),
    ):
        with contextlib.suppress(OSError):
            Path(path).write_text(words, encoding="ascii")


def furnish(*, hidden: Path | None, shown: Iterable[Path], memory_mb: int) -> set[str]:
    """In the first process of such a world: hide the agent's folder (all of it but `shown`), and
    put empty shared memory and a list of this world's processes in place of the machine's."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEWNS) != 0:
        return set()
    if libc.mount(None, b"/", None, _RECURSIVELY | _PRIVATELY, None) != 0:
        return set()
    took = set()
    size = min(memory_mb, _SHM_SIZE_MB) or _SHM_SIZE_MB
    with contextlib.suppress(OSError):
        _mount(libc, "tmpfs", Path("/dev/shm"), f"mode=1777,size={size}m")  # noqa: S108
        took.add("own_shared_memory")
    with contextlib.suppress(OSError):
        _mount(libc, "proc", Path("/proc"), "", more=_NOEXEC)
    with contextlib.suppress(OSError):
        if hidden is not None and _hide(libc, hidden.resolve(), [p.resolve() for p in shown]):
            took.add("no_files")
    return took


def _hide(libc: ctypes.CDLL, hidden: Path, shown: list[Path]) -> bool:
    """Mount emptiness over a folder, and what is to be seen of it back into its place."""
    inside = [path for path in shown if path.is_relative_to(hidden) and path.exists()]
    kept = [os.open(path, os.O_PATH | os.O_CLOEXEC) for path in inside]
    try:
        _mount(libc, "tmpfs", hidden, "mode=755,size=1m")
        for path, fd in zip(inside, kept, strict=True):
            path.mkdir(parents=True, exist_ok=True)
            _call(libc, f"/proc/self/fd/{fd}", path, None, _BIND | _RECURSIVELY, "")
    finally:
        for fd in kept:
            os.close(fd)
    return True


def _mount(libc: ctypes.CDLL, kind: str, path: Path, options: str, *, more: int = 0) -> None:
    _call(libc, kind, path, kind, _NOSUID | _NODEV | more, options)


def _call(
    libc: ctypes.CDLL, source: str, path: Path, kind: str | None, flags: int, options: str
) -> None:
    words = [os.fsencode(word) for word in (source, path)]
    kinds = kind.encode() if kind else None
    if libc.mount(*words, kinds, ctypes.c_ulong(flags), options.encode()) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(path))
