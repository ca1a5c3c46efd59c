"""Sleep until a model's links may have changed, a time is over, or somebody wakes the sleeper.

Linux's inotify tells at once and costs nothing while nothing happens. Where it cannot be had (no
folder yet, watches used up, a file system that tells nothing), a sleep is cut short instead.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
from collections.abc import Iterator
from pathlib import Path

POLL_S = 1.0
"""How long a sleep lasts where nothing tells of changes."""
_MOVED_TO, _CREATE, _DELETE, _ONLYDIR = 0x80, 0x100, 0x200, 0x01000000
_SELF_GONE = 0x400 | 0x800  # IN_DELETE_SELF | IN_MOVE_SELF
_OVER = _SELF_GONE | 0x8000  # IN_IGNORED


class FolderWatch:
    """Watches one folder; `wake` may be called from any thread and from a signal handler."""

    def __init__(self, folder: Path, *, inotify: bool = True) -> None:
        self._folder = folder
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._inotify = _init() if inotify else None
        self._watched: int | None = None

    @property
    def told(self) -> bool:
        """Say whether the kernel tells of changes."""
        return self._watched is not None

    def wake(self) -> None:
        """End the sleep; a pipe that is full or closed already has a byte for it."""
        with contextlib.suppress(OSError):
            os.write(self._writer, b"!")

    def arm(self) -> None:
        """Begin to watch if that is possible now. What changed before must be looked up after."""
        if self._inotify is None or self._watched is not None:
            return
        self._watched = _add(self._inotify, self._folder)

    def wait(self, seconds: float, name: str) -> bool:
        """Sleep, at most `seconds`; say whether the kernel tells that `name` was set anew."""
        if not self.told:
            seconds = min(seconds, POLL_S)
        fds = [self._reader] + ([self._inotify] if self._inotify is not None else [])
        anew = False
        for fd in select.select(fds, [], [], max(seconds, 0.0))[0]:
            with contextlib.suppress(BlockingIOError):
                said = os.read(fd, 1 << 16)
                if fd != self._inotify:
                    continue
                for mask, what in _events(said):
                    anew = anew or what == name
                    if mask & _OVER:
                        self._watched = None  # the folder is gone; `arm` finds the next one
        return anew

    def close(self) -> None:
        """Give the descriptors back."""
        for fd in (self._reader, self._writer, self._inotify):
            if fd is not None:
                with contextlib.suppress(OSError):
                    os.close(fd)


def _init() -> int | None:
    import ctypes  # here, so that importing the SDK stays cheap

    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "inotify_init1"):
        return None
    fd = int(libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
    return fd if fd >= 0 else None


def _add(fd: int, folder: Path) -> int | None:
    import ctypes

    mask = _MOVED_TO | _CREATE | _DELETE | _ONLYDIR | _SELF_GONE
    found = ctypes.CDLL(None).inotify_add_watch(fd, os.fsencode(folder), mask)
    return int(found) if found >= 0 else None


def _events(said: bytes) -> Iterator[tuple[int, str]]:
    """Yield each event's mask and the name that it is about (struct inotify_event)."""
    at = 0
    while at + 16 <= len(said):
        length = int.from_bytes(said[at + 12 : at + 16], sys.byteorder)
        name = said[at + 16 : at + 16 + length].rstrip(b"\0")
        yield int.from_bytes(said[at + 4 : at + 8], sys.byteorder), os.fsdecode(name)
        at += 16 + length
