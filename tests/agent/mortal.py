"""A disk whose process ends before one of its changes, for tests that go on in the same process."""

from __future__ import annotations

from pathlib import Path

from pilotwave_agent.host.disk import Disk


class Dies(BaseException):
    """The process ends here."""


class Mortal(Disk):
    """Dies when it has made `left` changes and is to make another."""

    def __init__(self, left: int) -> None:
        self.left = left

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Dies

    def rename(self, source: Path, target: Path) -> None:
        self._count()
        super().rename(source, target)

    def unlink(self, path: Path) -> None:
        self._count()
        super().unlink(path)

    def write(self, fd: int, data: bytes | memoryview) -> None:
        self._count()
        super().write(fd, data)

    def sync_dir(self, path: Path) -> None:
        self._count()
        super().sync_dir(path)
