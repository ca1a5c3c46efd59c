"""A model of what lies on a disk when the power goes: every state that POSIX allows, enumerated.

What fsync gives is all that is relied on. Bytes written since a file's last fsync may be there, be
missing, be torn or be zeros, each write by itself; a name in a folder may stand for anything it has
stood for since the folder's last fsync, each name by itself. So a rename may be half done: both
names, or neither. Journalling file systems allow less; what survives here survives there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

_ALL_SUBSETS = 4
"""Up to so many unsynced writes of one file, every subset of them; beyond, prefixes and single
losses."""


@dataclass(frozen=True)
class Write:
    """Bytes put at an offset; None cuts the file off there."""

    at: int
    data: bytes | None

    def on(self, content: bytes) -> bytes:
        """Return a file's content after it."""
        if self.data is None:
            return content[: self.at].ljust(self.at, b"\0")
        padded = content.ljust(self.at, b"\0")
        return padded[: self.at] + self.data + padded[self.at + len(self.data) :]

    def damaged(self) -> Iterator[Write]:
        """Yield what may come of it: half of it, or zeros in its place."""
        if self.data:
            yield Write(self.at, self.data[: len(self.data) // 2])
            yield Write(self.at, bytes(len(self.data)))


@dataclass(eq=False)
class File:
    """A file whatever its names: what is surely on disk, and what came since."""

    mode: int
    durable: bytes = b""
    durable_mode: int | None = None
    pending: list[Write] = field(default_factory=list)

    @property
    def now(self) -> bytes:
        """Return what a running system reads."""
        content = self.durable
        for write in self.pending:
            content = write.on(content)
        return content

    def sync(self) -> None:
        """All of it is on disk."""
        self.durable, self.durable_mode, self.pending = self.now, self.mode, []

    def choices(self) -> list[tuple[bytes, int]]:
        """Return (content, mode) as a power cut may leave them; the newest first."""
        contents = {self.now: None}
        for chosen in self._subsets():
            contents[_after(self.durable, chosen)] = None
            for n, write in enumerate(chosen):
                for torn in write.damaged():
                    contents[_after(self.durable, [*chosen[:n], torn, *chosen[n + 1 :]])] = None
        modes = {self.mode: None}
        if self.durable_mode is not None:
            modes[self.durable_mode] = None
        return [(content, mode) for content in contents for mode in modes]

    def _subsets(self) -> Iterator[list[Write]]:
        count = len(self.pending)
        if count <= _ALL_SUBSETS:
            for size in range(count + 1):
                for chosen in combinations(self.pending, size):
                    yield list(chosen)
            return
        for n in range(count + 1):
            yield self.pending[:n]
            yield self.pending[:n] + self.pending[n + 1 :]


def _after(content: bytes, writes: list[Write]) -> bytes:
    for write in writes:
        content = write.on(content)
    return content


@dataclass(frozen=True)
class Link:
    """A symbolic link: it is there or not, never half."""

    target: str


@dataclass(eq=False)
class Folder:
    """A folder: what each name stands for now, and what it stood for since the last fsync."""

    names: dict[str, Node] = field(default_factory=dict)
    past: dict[str, list[Node | None]] = field(default_factory=dict)

    def set(self, name: str, node: Node | None) -> None:
        """Let a name stand for another thing, or for nothing."""
        self.past.setdefault(name, []).append(self.names.get(name))
        if node is None:
            self.names.pop(name, None)
        else:
            self.names[name] = node

    def sync(self) -> None:
        """All names are on disk."""
        self.past.clear()

    def choices(self, name: str) -> list[Node | None]:
        """Return what a name may stand for after a power cut; the newest first."""
        known = [self.names.get(name), *reversed(self.past.get(name, []))]
        return list({id(node): node for node in known}.values())


Node = File | Link | Folder
Left = tuple[bytes, int] | str | None
"""What a path is after the cut: (content, mode) of a file, a link's target, None for a folder."""
Tree = tuple[tuple[str, Left], ...]


class Medium:
    """A disk with one folder on it; paths are relative to that."""

    def __init__(self) -> None:
        self.top = Folder()

    @classmethod
    def holding(cls, root: Path) -> Medium:
        """Return a medium on which all below `root` is safely on disk."""
        made, files = cls(), dict[int, File]()
        made.top = _copied(root, files)
        return made

    def folder(self, path: Path) -> Folder:
        """Return the folder at a path, as a running system sees it."""
        found = self.find(path)
        assert isinstance(found, Folder), path
        return found

    def find(self, path: Path) -> Node | None:
        """Return what is at a path now."""
        node: Node | None = self.top
        for part in path.parts:
            node = node.names.get(part) if isinstance(node, Folder) else None
        return node

    def after_cut(self, most: int | None = None, *, newest: bool = True) -> Iterator[Tree]:
        """Yield what a power cut now may leave: everything, or what differs in at most `most`
        respects from all of it having arrived (`newest`) or none of it."""
        yield from _expanded([("", self.top)], (), {}, most, newest)

    def bound(self) -> int:
        """Return a number that the number of states does not exceed."""
        total, seen, todo = 1, set[int](), [self.top]
        while todo:
            folder = todo.pop()
            for name in {*folder.names, *folder.past}:
                choices = folder.choices(name)
                total *= len(choices)
                for node in choices:
                    if isinstance(node, Folder):
                        todo.append(node)
                    elif isinstance(node, File) and id(node) not in seen:
                        seen.add(id(node))
                        total *= len(node.choices())
        return total


def _copied(root: Path, files: dict[int, File]) -> Folder:
    made = Folder()
    for path in root.iterdir():
        if path.is_symlink():
            made.names[path.name] = Link(os.readlink(path))
        elif path.is_dir():
            made.names[path.name] = _copied(path, files)
        else:
            found = path.stat()
            new = File(found.st_mode & 0o777, path.read_bytes(), found.st_mode & 0o777)
            made.names[path.name] = files.setdefault(found.st_ino, new)
    return made


def _expanded(
    todo: list[tuple[str, Folder]],
    tree: Tree,
    chosen: dict[int, tuple[bytes, int]],
    most: int | None,
    newest: bool,
) -> Iterator[Tree]:
    """Go through the folders in `todo`; a file with two names has one content (`chosen`)."""
    if not todo:
        yield tree
        return
    (path, folder), rest = todo[0], todo[1:]
    steps = sorted({*folder.names, *folder.past})
    yield from _named(path, folder, steps, rest, tree, chosen, most, newest)


def _named(
    path: str,
    folder: Folder,
    steps: list[str],
    todo: list[tuple[str, Folder]],
    tree: Tree,
    chosen: dict[int, tuple[bytes, int]],
    most: int | None,
    newest: bool,
) -> Iterator[Tree]:
    if not steps:
        yield from _expanded(todo, tree, chosen, most, newest)
        return
    name, later = steps[0], steps[1:]
    here = f"{path}/{name}" if path else name
    for node, left in _priced(folder.choices(name), most, newest):
        if node is None:
            yield from _named(path, folder, later, todo, tree, chosen, left, newest)
        elif isinstance(node, Folder):
            more = [*todo, (here, node)]
            yield from _named(
                path, folder, later, more, (*tree, (here, None)), chosen, left, newest
            )
        elif isinstance(node, Link):
            grown = (*tree, (here, node.target))
            yield from _named(path, folder, later, todo, grown, chosen, left, newest)
        elif id(node) in chosen:
            grown = (*tree, (here, chosen[id(node)]))
            yield from _named(path, folder, later, todo, grown, chosen, left, newest)
        else:
            for content, less in _priced(node.choices(), left, newest):
                known = {**chosen, id(node): content}
                grown = (*tree, (here, content))
                yield from _named(path, folder, later, todo, grown, known, less, newest)


def _priced(choices: list, most: int | None, newest: bool) -> Iterator[tuple]:  # type: ignore[type-arg]
    """Yield choices with what is left to spend; any but the first (or last) costs one."""
    usual = 0 if newest else len(choices) - 1
    for n, choice in enumerate(choices):
        if most is None:
            yield choice, None
        elif n == usual or most > 0:
            yield choice, most - (n != usual)
