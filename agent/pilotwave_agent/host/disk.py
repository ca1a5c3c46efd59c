"""The agent's one door to the file system: every change on disk goes through a `Disk`.

The primitives are one system call each, so that a test can put itself between any two of them. What
is composed of them is durable when it returns: a power cut leaves the old or the new, never half.
Which files there are, and when they change, is decided elsewhere.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.states import Reason

_KEEP_SIZE = 1
_SYNC_EVERY = 16 << 20
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_REASONS = {
    errno.ENOSPC: Reason.DISK_FULL,
    errno.EDQUOT: Reason.DISK_FULL,
    errno.EFBIG: Reason.DISK_FULL,
    errno.EROFS: Reason.DISK_READONLY,
    errno.EACCES: Reason.DISK_READONLY,
    errno.EPERM: Reason.DISK_READONLY,
}


def refusal_of(e: OSError) -> RefusedError:
    """Say no in the words of the protocol for what the file system raised."""
    where = f"{e.filename}: " if e.filename else ""
    reason = _REASONS.get(e.errno or 0, Reason.INTERNAL)
    return RefusedError(reason, f"{where}{e.strerror or e}")


class Disk:
    """File operations. Paths are absolute; every method may raise `OSError`."""

    # primitives: each changes one thing
    def open_new(self, path: Path, mode: int = 0o600) -> int:
        """Make a file that is not there yet and open it for writing; return the descriptor."""
        return os.open(path, _FLAGS | os.O_EXCL, mode)

    def open_append(self, path: Path, mode: int = 0o600) -> int:
        """Open a file for writing at its end; return the descriptor."""
        return os.open(path, _FLAGS | os.O_APPEND, mode)

    def write(self, fd: int, data: bytes | memoryview) -> None:
        """Write all of `data`."""
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]

    def sync_fd(self, fd: int) -> None:
        """See a file's bytes on the medium."""
        os.fsync(fd)

    def sync_dir(self, path: Path) -> None:
        """See a folder's names on the medium."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file or folder another name, replacing a file or an empty folder there."""
        os.replace(source, target)

    def symlink(self, points_to: str, path: Path) -> None:
        """Make a symbolic link."""
        os.symlink(points_to, path)

    def link(self, source: Path, target: Path) -> None:
        """Make a second name for a file."""
        os.link(source, target, follow_symlinks=False)

    def unlink(self, path: Path) -> None:
        """Remove a file's name; one that is gone already is fine."""
        path.unlink(missing_ok=True)

    def mkdir(self, path: Path, mode: int = 0o755) -> None:
        """Make one folder; one that is there already is fine, a link to one is not."""
        try:
            os.mkdir(path, mode)
        except FileExistsError:
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                raise

    def rmdir(self, path: Path) -> None:
        """Remove an empty folder."""
        os.rmdir(path)

    def truncate(self, path: Path, size: int) -> None:
        """Cut a file off after `size` bytes."""
        os.truncate(path, size)

    def chmod(self, path: Path, mode: int) -> None:
        """Set a file's permissions."""
        os.chmod(path, mode)

    def reserve(self, fd: int, size: int) -> None:
        """Set space for `size` bytes aside without changing the file's size.

        A file system that cannot do it is let pass: the check of free space came before.
        """
        import ctypes  # only a download needs it, and the resident agent makes none

        libc = ctypes.CDLL(None, use_errno=True)
        if not hasattr(libc, "fallocate64"):
            return
        length = ctypes.c_int64(size)
        if libc.fallocate64(fd, _KEEP_SIZE, ctypes.c_int64(0), length) != 0:
            number = ctypes.get_errno()
            if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS):
                raise OSError(number, os.strerror(number))

    # reading
    def read(self, path: Path) -> bytes:
        """Return a regular file's bytes. What waits for a writer or leads elsewhere is none."""
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as stream:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(errno.EINVAL, "expected a regular file", str(path))
            return stream.read()

    def read_link(self, path: Path) -> str | None:
        """Return where a symbolic link points; None if there is none."""
        try:
            return os.readlink(path)
        except OSError:
            return None

    def size(self, path: Path) -> int | None:
        """Return a regular file's size in bytes; None if there is no such file."""
        try:
            found = os.lstat(path)
        except OSError:
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def allocated(self, path: Path) -> int:
        """Return how many bytes of the medium a file takes, reserved ones included."""
        try:
            return os.lstat(path).st_blocks * 512
        except OSError:
            return 0

    def names(self, path: Path) -> list[str]:
        """Return the names in a folder in order; none if there is no such folder."""
        try:
            return sorted(os.listdir(path))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def free_bytes(self, path: Path) -> int:
        """Return how many bytes this user may still write on a path's file system."""
        found = os.statvfs(path)
        return found.f_bavail * found.f_frsize

    # composed: durable when they return
    def sync_bytes(self, path: Path) -> None:
        """See a file's bytes on the medium, whoever wrote them."""
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            self.sync_fd(fd)
        finally:
            os.close(fd)

    def sync_file(self, path: Path) -> None:
        """See a file's bytes and its name on the medium, whoever wrote it."""
        self.sync_bytes(path)
        self.sync_dir(path.parent)

    def make_dirs(self, path: Path) -> None:
        """Make a folder and those above it."""
        if path.is_dir():
            self.sync_dir(path.parent)  # whoever made it may have been killed before this
            return
        self.make_dirs(path.parent)
        self.mkdir(path)
        self.sync_dir(path.parent)

    def write_atomic(self, path: Path, data: bytes, mode: int = 0o600) -> None:
        """Replace a file at one stroke."""
        temp = path.with_name(f".{path.name}.new")
        self.unlink(temp)  # what a crash left may be read-only, and then no owner can write to it
        fd = self.open_new(temp, mode)
        try:
            self.write(fd, data)
            self.sync_fd(fd)
        except OSError:
            self.unlink(temp)  # a full disk needs the room
            raise
        finally:
            os.close(fd)
        self.move(temp, path)

    def append(self, path: Path, data: bytes, mode: int = 0o600) -> None:
        """Add bytes to a file's end."""
        fd = self.open_append(path, mode)
        try:
            self.write(fd, data)
            self.sync_fd(fd)
        finally:
            os.close(fd)

    def move(self, source: Path, target: Path) -> None:
        """Rename within one folder or between two; both sides are on disk."""
        self.rename(source, target)
        self.sync_dir(target.parent)
        if source.parent != target.parent:
            self.sync_dir(source.parent)

    def point(self, path: Path, points_to: str) -> None:
        """Make `path` a symbolic link to `points_to`, replacing the link before at one stroke."""
        if self.read_link(path) == points_to:
            self.sync_dir(path.parent)  # the rename that made it so may not be on disk yet
            return
        temp = path.with_name(f".{path.name}.new")
        self.unlink(temp)
        self.symlink(points_to, temp)
        self.move(temp, path)

    def remove_tree(self, path: Path) -> None:
        """Remove a folder with all that is in it, or a file; links are not followed."""
        if not path.is_symlink() and path.is_dir():
            for name in self.names(path):
                self.remove_tree(path / name)
            self.rmdir(path)
        else:
            self.unlink(path)


@contextmanager
def appending(
    disk: Disk, path: Path, *, reserve: int = 0
) -> Iterator[Callable[[bytes | memoryview], None]]:
    """Yield what adds bytes to a file's end; they are on the medium in the end, and now and then.

    Where the disk says no, the file goes: the room that is left belongs to everyone else.
    """
    fd, unsynced = disk.open_append(path), 0

    def add(data: bytes | memoryview) -> None:
        nonlocal unsynced
        disk.write(fd, data)
        unsynced += len(data)
        if unsynced >= _SYNC_EVERY:
            disk.sync_fd(fd)
            unsynced = 0

    try:
        if reserve:
            disk.reserve(fd, reserve)
        try:
            yield add
        finally:
            disk.sync_fd(fd)
    except OSError:
        disk.unlink(path)
        raise
    finally:
        os.close(fd)
