"""Let the kernel keep this process and its children away from files (Landlock, from Linux 5.13).

What may be done is a list: read and run everything but one hidden folder, write to scratch and to
devices. A process cannot undo it. https://docs.kernel.org/userspace-api/landlock.html
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # the same on all machines
_ASK_VERSION = 1
_BENEATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_TRUNCATE, _IOCTL_DEV = 1 << 14, 1 << 15
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_ON_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
# how many kinds of access each version of Landlock knows
_KINDS = {1: 13, 2: 14, 3: 15, 4: 15}
_KINDS_SINCE_5 = 16
_TCP = 0b11  # bind, connect
_SCOPES = 0b11  # abstract sockets and signals beyond this process's own


def fence(
    *,
    hidden: Path | None,
    shown: Iterable[Path],
    writable: Iterable[Path],
    shared_memory: bool = False,
) -> bool:
    """Restrict this process; say whether the kernel took it.

    Everything may be read but what lies in `hidden`, of which the paths in `shown` may be after
    all. With `shared_memory`, files may be made there. PR_SET_NO_NEW_PRIVS has to be set before.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_CREATE, None, ctypes.c_size_t(0), _ASK_VERSION)
    if version < 1:
        return False
    known = (1 << _KINDS.get(version, _KINDS_SINCE_5)) - 1
    words = [known] + [_TCP] * (version >= 4) + [_SCOPES] * (version >= 6)
    attributes = struct.pack(f"={len(words)}Q", *words)
    rules = libc.syscall(_CREATE, attributes, ctypes.c_size_t(len(attributes)), 0)
    if rules < 0:
        return False
    try:
        for path in _all_but(hidden):
            # a link beside the hidden folder may lead into it
            _allow(libc, rules, path, _READ & known, follow=False)
        for path in shown:
            _allow(libc, rules, path, _READ & known)
        for path in (*writable, Path("/proc/self")):
            _allow(libc, rules, path, known)
        # devices may be used as they are; files are made in shared memory alone
        _allow(libc, rules, Path("/dev"), (_READ | _ON_FILES) & known)
        if shared_memory:
            _allow(libc, rules, Path("/dev/shm"), known)  # noqa: S108
        return bool(libc.syscall(_RESTRICT, rules, 0) == 0)
    finally:
        os.close(rules)


def _all_but(hidden: Path | None) -> Iterator[Path]:
    """Yield paths that together hold everything but what is in `hidden`."""
    if hidden is None:
        yield Path("/")
        return
    hidden = hidden.resolve()
    way = [*reversed(hidden.parents), hidden]
    for folder, excepted in itertools.pairwise(way):
        with contextlib.suppress(OSError):
            yield from (folder / name for name in os.listdir(folder) if name != excepted.name)


def _allow(libc: ctypes.CDLL, rules: int, path: Path, access: int, *, follow: bool = True) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
    except OSError:
        return
    try:
        if not path.is_dir():
            access &= _ON_FILES
        rule = struct.pack("=Qi", access, fd)
        libc.syscall(_ADD, rules, _BENEATH, rule, 0)
    finally:
        os.close(fd)
