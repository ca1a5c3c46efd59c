"""Where trusted metadata lives on disk: TUF's cache, and the memory of versions beside it.

One user at a time, and everything written is on disk before anyone acts on it. python-tuf's client
does neither by itself; it writes the cache on its own, everything else here goes through the
agent's `Disk`.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pilotwave_agent.host.disk import Disk
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.states import Reason

LOCK_WAIT_S = 30.0


@dataclass(frozen=True)
class TrustStore:
    """The folder of TUF's cache, the memory file, and how long to wait for another user."""

    cache: Path
    memory: Path
    disk: Disk = field(default_factory=Disk)
    lock_wait_s: float = LOCK_WAIT_S

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Hold the store alone; what changed in the cache is on disk when this ends."""
        self.disk.make_dirs(self.cache)
        self.disk.make_dirs(self.memory.parent)
        self.disk.sync_dir(self.memory.parent)  # its last writer may have been killed before
        fd = os.open(self.memory.parent, os.O_RDONLY)
        try:
            self._lock(fd)
            before = self._stamps()
            try:
                yield
            finally:
                self._sync(before)
        finally:
            os.close(fd)

    def _lock(self, fd: int) -> None:
        ends = time.monotonic() + self.lock_wait_s
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError as e:
                if time.monotonic() > ends:
                    sentence = f"another process has held {self.memory.parent} too long"
                    raise RefusedError(Reason.INTERNAL, sentence) from e
            time.sleep(0.02)

    def _stamps(self) -> dict[Path, tuple[int, int]]:
        """Return what tells each file, folder and link of the cache from an earlier one."""
        found = [self.cache, *self.cache.rglob("*")]
        return {p: ((s := p.lstat()).st_ino, s.st_mtime_ns) for p in found}

    def _sync(self, before: Mapping[Path, tuple[int, int]]) -> None:
        """python-tuf renames without fsync; a power cut could bring back an older cache."""
        changed = [p for p, stamp in self._stamps().items() if before.get(p) != stamp]
        folders = [p for p in changed if p.is_dir() and not p.is_symlink()]
        for path in changed:
            if path not in folders and not path.is_symlink():
                self.disk.sync_bytes(path)
        for folder in folders:  # what gained or lost a name has changed as well
            self.disk.sync_dir(folder)
