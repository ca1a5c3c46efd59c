"""Where trusted metadata lives on disk: TUF's cache, and the memory of versions beside it.

One user at a time, and everything written is on disk before anyone acts on it. python-tuf's client
does neither by itself.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pilotwave_agent import tufstate
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.states import Reason

LOCK_WAIT_S = 30.0


@dataclass(frozen=True)
class TrustStore:
    """The folder of TUF's cache, the memory file, and how long to wait for another user."""

    cache: Path
    memory: Path
    lock_wait_s: float = LOCK_WAIT_S

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Hold the store alone; what changed in the cache is on disk when this ends."""
        self.cache.mkdir(parents=True, exist_ok=True)
        self.memory.parent.mkdir(parents=True, exist_ok=True)
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
        files = [p for p in self.cache.rglob("*") if p.is_file() and not p.is_symlink()]
        return {p: ((s := p.stat()).st_ino, s.st_mtime_ns) for p in files}

    def _sync(self, before: Mapping[Path, tuple[int, int]]) -> None:
        """python-tuf renames without fsync; a power cut could bring back an older cache."""
        changed = [p for p, stamp in self._stamps().items() if before.get(p) != stamp]
        for path in changed:
            tufstate.sync(path)
        for folder in {p.parent for p in changed}:
            tufstate.sync(folder)
