"""A file system of some megabytes that can be filled to the last byte and made read-only.

It is a tmpfs, mounted where only this process and what it starts see it. Root may do that, and
where the kernel lets users have namespaces, anyone.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path

_CLONE_NEWNS = 0x00020000
_BLOCK = 4096


def own_mounts() -> bool:
    """Give this process mounts of its own; False where that is not allowed."""
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNS) != 0:
        return False
    private = ["mount", "--make-rprivate", "/"]
    return subprocess.run(private, check=False, capture_output=True).returncode == 0


class SmallDisk:
    """The file system at `folder`. Mounting and filling raise `CalledProcessError`, `OSError`."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.folder, self._ballast = folder, folder / "ballast"
        folder.mkdir(parents=True, exist_ok=True)
        _mount("-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "tmpfs", str(folder))

    def fill(self, leave: int = 0) -> None:
        """Fill it with zeros until `leave` bytes, in whole blocks, are left."""
        found = os.statvfs(self.folder)
        count = max(found.f_bavail - leave // _BLOCK, 0) * _BLOCK
        with self._ballast.open("ab") as file:
            os.posix_fallocate(file.fileno(), file.tell(), max(count, 1))

    def empty(self) -> None:
        """Give the room back."""
        self._ballast.unlink(missing_ok=True)

    def read_only(self, on: bool = True) -> None:
        """Let nobody write to it; nothing on it may be open for writing."""
        _mount("-o", f"remount,{'ro' if on else 'rw'}", str(self.folder))

    def unmount(self) -> None:
        """Let it go with all that is on it."""
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True, capture_output=True)


def _mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True, capture_output=True, text=True)
