"""A `Disk` that does what it is told and keeps the model of the medium in step with it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from pilotwave_agent.host.disk import Disk
from tests.agent.medium import File, Folder, Link, Medium, Node, Write

# what the agent's own port does not write: TUF's client writes its cache by itself
_FOREIGN = "tuf"
_LOCKS = ("run.lock", "work.lock")  # their content counts for nothing after a restart


class Recorder(Disk):
    """Calls `between` before each change and each fsync, with the medium as it is then."""

    def __init__(self, root: Path, medium: Medium, between: Callable[[Medium], None]) -> None:
        self.root, self.medium, self.between = root, medium, between
        self.count = 0
        self._stamps: dict[Path, tuple[int, int]] = self._foreign()

    # --- the model

    def settle(self) -> None:
        """Take in what others wrote, and let the test look."""
        self._adopt()
        self.count += 1
        self.between(self.medium)

    def _at(self, path: Path) -> tuple[Folder, str]:
        found = path.relative_to(self.root)
        return self.medium.folder(found.parent), found.name

    def _file(self, fd: int) -> File:
        return self._found(Path(os.readlink(f"/proc/self/fd/{fd}")))

    def _found(self, path: Path) -> File:
        node = self.medium.find(path.relative_to(self.root))
        assert isinstance(node, File), path
        return node

    def _foreign(self) -> dict[Path, tuple[int, int]]:
        top = self.root / _FOREIGN
        found = [p for p in top.rglob("*") if p.is_symlink() or not p.is_dir()]
        return {p: ((s := p.lstat()).st_ino, s.st_mtime_ns) for p in found}

    def _adopt(self) -> None:
        now = self._foreign()
        for path in self._stamps.keys() - now.keys():
            folder, name = self._at(path)
            folder.set(name, None)
        for path in now:
            if self._stamps.get(path) != now[path]:
                self._adopt_one(path)
        self._stamps = now

    def _adopt_one(self, path: Path) -> None:
        inside = path.relative_to(self.root)
        for parent in reversed(inside.parents[:-1]):
            if self.medium.find(parent) is None:
                self.medium.folder(parent.parent).set(parent.name, Folder())
        node: Node = (
            Link(os.readlink(path))
            if path.is_symlink()
            else File(0o600, pending=[Write(0, path.read_bytes())])
        )
        self.medium.folder(inside.parent).set(inside.name, node)

    # --- the port

    def open_new(self, path: Path, mode: int = 0o600) -> int:
        self.settle()
        fd = super().open_new(path, mode)
        if isinstance(known := self.medium.find(path.relative_to(self.root)), File):
            known.pending.append(Write(0, None))
        else:
            self._make(path, mode)
        return fd

    def open_append(self, path: Path, mode: int = 0o600) -> int:
        self.settle()
        fd = super().open_append(path, mode)
        if self.medium.find(path.relative_to(self.root)) is None:
            self._make(path, mode)
        return fd

    def _make(self, path: Path, mode: int) -> None:
        folder, name = self._at(path)
        folder.set(name, File(mode))

    def write(self, fd: int, data: bytes | memoryview) -> None:
        self.settle()
        file = self._file(fd)
        super().write(fd, data)
        file.pending.append(Write(len(file.now), bytes(data)))

    def sync_fd(self, fd: int) -> None:
        self.settle()
        self._file(fd).sync()

    def sync_dir(self, path: Path) -> None:
        self.settle()
        if path == self.root or path.is_relative_to(self.root):
            self.medium.folder(path.relative_to(self.root)).sync()

    def rename(self, source: Path, target: Path) -> None:
        self.settle()
        super().rename(source, target)
        (before, name), (after, other) = self._at(source), self._at(target)
        after.set(other, before.names[name])
        before.set(name, None)

    def symlink(self, points_to: str, path: Path) -> None:
        self.settle()
        super().symlink(points_to, path)
        folder, name = self._at(path)
        folder.set(name, Link(points_to))

    def link(self, source: Path, target: Path) -> None:
        self.settle()
        super().link(source, target)
        folder, name = self._at(target)
        folder.set(name, self._found(source))

    def unlink(self, path: Path) -> None:
        self.settle()
        there = path.is_symlink() or path.exists()
        super().unlink(path)
        if there:
            self._gone(path)

    def mkdir(self, path: Path, mode: int = 0o755) -> None:
        self.settle()
        there = path.is_dir()
        super().mkdir(path, mode)
        if not there:
            folder, name = self._at(path)
            folder.set(name, Folder())

    def rmdir(self, path: Path) -> None:
        self.settle()
        super().rmdir(path)
        self._gone(path)

    def _gone(self, path: Path) -> None:
        folder, name = self._at(path)
        folder.set(name, None)

    def truncate(self, path: Path, size: int) -> None:
        self.settle()
        super().truncate(path, size)
        self._found(path).pending.append(Write(size, None))

    def chmod(self, path: Path, mode: int) -> None:
        self.settle()
        super().chmod(path, mode)
        self._found(path).mode = mode


class Plain(Disk):
    """A disk without fsync's wait, for a user who is not root: modes are obeyed."""

    def open_new(self, path: Path, mode: int = 0o600) -> int:
        _check(path)
        return super().open_new(path, mode)

    def open_append(self, path: Path, mode: int = 0o600) -> int:
        _check(path)
        return super().open_append(path, mode)

    def sync_fd(self, fd: int) -> None:
        return

    def sync_dir(self, path: Path) -> None:
        return


def _check(path: Path) -> None:
    if path.exists() and not path.stat().st_mode & 0o200:
        raise PermissionError(13, "Permission denied", str(path))


def without_locks(root: Path) -> None:
    """Remove the lock files, which mean nothing after a restart."""
    for name in _LOCKS:
        (root / name).unlink(missing_ok=True)
