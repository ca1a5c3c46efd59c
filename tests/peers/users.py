"""Other users of this machine, to do what an application of theirs may do.

Only root can become somebody else; `ROOT` says whether this process can.
"""

from __future__ import annotations

import ctypes
import grp
import os
import shutil
import stat
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = os.geteuid() == 0
GROUP = 65534
"""A group that every Linux has; the tests give it to applications."""
EYE, OTHER = 64_001, 64_002
"""Users of two applications; they need no names."""


def group_name() -> str:
    """Return the name of a group that applications can be given here."""
    return grp.getgrgid(GROUP if ROOT else os.getegid()).gr_name


@contextmanager
def open_folder() -> Iterator[Path]:
    """Give a folder that other users can reach, which a test's own folder is not."""
    folder = Path(tempfile.mkdtemp(prefix="pw-attack-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def show_interpreter() -> None:
    """Let every user run this interpreter, in a world of mounts of this process's own: it may lie
    in a folder of root's."""
    prefix = Path(sys.base_prefix).resolve()
    closed = [p for p in reversed(prefix.parents) if not p.stat().st_mode & stat.S_IXOTH]
    if not closed:
        return
    libc = ctypes.CDLL(None)
    assert libc.unshare(0x20000) == 0
    assert libc.mount(None, b"/", None, 0x44000, None) == 0
    kept = os.open(prefix, os.O_PATH)
    assert libc.mount(b"none", os.fsencode(closed[0]), b"tmpfs", 0, b"mode=755") == 0
    prefix.mkdir(parents=True)
    source = f"/proc/self/fd/{kept}".encode()
    assert libc.mount(source, os.fsencode(prefix), None, 0x1000, None) == 0


def as_user(uid: int, deed: Callable[[], object], *, groups: tuple[int, ...] = (GROUP,)) -> str:
    """Do something as another user in a child; return the name of the exception, "" for none."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            show_interpreter()
            os.setgroups(groups)
            os.setresgid(groups[0], groups[0], groups[0])
            os.setresuid(uid, uid, uid)
            os.umask(0o022)
            deed()
        except BaseException as e:
            if isinstance(e, AssertionError):
                traceback.print_exc()
            os.write(writer, type(e).__name__.encode())
        finally:
            os._exit(0)
    os.close(writer)
    said = os.read(reader, 200).decode()
    os.close(reader)
    os.waitpid(child, 0)
    return said
