"""Numbered version folders, as Triton, OpenVINO Model Server and TensorFlow Serving read them.

`<folder>/<model>/<number>/` appears by one rename and never changes. Only folders that this agent
made are ever removed: it keeps their numbers in `.pilotwave` beside them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pilotwave_agent import version_folder
from pilotwave_agent.host.disk import Disk
from pilotwave_agent.host.shared_folder import remove_tree
from pilotwave_agent.tell.base import Release

_TEMP = ".tmp-"
_MINE = ".pilotwave"
CONFIG = "config.pbtxt"


class Folders:
    """One model's version folders. `rename` gives the entrypoint the name `model.<ending>`."""

    def __init__(self, disk: Disk, base: Path, *, rename: bool) -> None:
        self._disk, self._base, self._rename = disk, base, rename

    def stage(self, release: Release) -> None:
        """Make a release's folder, and remove those that are of no use any more."""
        if release.number < 1:
            raise OSError(0, f"{release.version} has no number", str(self._base))
        self._disk.make_dirs(self._base)
        self._note({*self._mine(), release.number})
        target = self._base / str(release.number)
        if not target.is_dir():
            self._build(release, target)
        self.tidy({release.number, *release.keep})

    def _build(self, release: Release, target: Path) -> None:
        temp = target.with_name(f"{_TEMP}{release.number}")
        _remove(temp)
        os.mkdir(temp, 0o755)  # what somebody else put there meanwhile is not used
        for source, name in self._files(release):
            self._disk.make_dirs((temp / name).parent)
            version_folder.place_file(self._disk, source, temp / name)
        for root, _, _ in os.walk(temp, topdown=False):
            self._disk.sync_dir(Path(root))
        self._disk.move(temp, target)

    def _files(self, release: Release) -> Iterator[tuple[Path, str]]:
        entry = PurePosixPath(release.entrypoint)
        for root, _, files in os.walk(release.path):
            for file in files:
                source = Path(root, file)
                name = PurePosixPath(source.relative_to(release.path))
                if self._rename and name == PurePosixPath(CONFIG):
                    continue  # it belongs to the model, not to one version
                if self._rename and (name.parent, name.stem) == (entry.parent, entry.stem):
                    # an IR's .bin goes by its .xml's name
                    name = PurePosixPath(f"model{name.suffix}")
                yield source, str(name)

    def remove(self, number: int) -> None:
        """Take a folder away, so that the highest number left is the one to serve."""
        if number in self._mine():
            self._drop(number)
            self._note(self._mine() - {number})

    def tidy(self, keep: set[int]) -> None:
        """Remove what this agent made and nobody needs."""
        mine = self._mine()
        for number in mine - keep:
            self._drop(number)
        self._note(mine & keep)
        for name in self._disk.names(self._base):
            if name.startswith(_TEMP):
                _remove(self._base / name)

    def _drop(self, number: int) -> None:
        folder = self._base / str(number)
        if folder.is_dir():
            temp = folder.with_name(f"{_TEMP}{number}")
            _remove(temp)
            self._disk.move(folder, temp)
            _remove(temp)

    def _mine(self) -> set[int]:
        path = self._base / _MINE
        if self._disk.size(path) is None:
            return set()
        return {int(line) for line in self._disk.read(path).split() if line.isdigit()}

    def _note(self, numbers: set[int]) -> None:
        if numbers != self._mine():
            text = "".join(f"{n}\n" for n in sorted(numbers))
            self._disk.write_atomic(self._base / _MINE, text.encode(), 0o644)


def _remove(path: Path) -> None:
    """Remove a folder, or what lies in its place, without following any link: the repository may be
    a folder where others write too."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        remove_tree(path)
