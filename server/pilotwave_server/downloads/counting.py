"""Count the bytes that are sent in memory, and write the counts down now and then.

A server that dies loses what it sent since the last flush, `FLUSH_S` seconds at most.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

from pilotwave_server.db import Database, upsert
from pilotwave_server.downloads.tables import SentRow

FLUSH_S = 10
CHUNK = 1000


class For(NamedTuple):
    """Whom and what bytes were for: the key of a `SentRow`."""

    device_id: int
    model: str
    version: str
    variant: str
    rollout: str
    site: str


class _Sum:
    """Bytes of whole files, bytes of deltas, and what the deltas' bytes stood for."""

    __slots__ = ("delta", "full", "stood_for")

    def __init__(self) -> None:
        self.full = self.delta = self.stood_for = 0


class Counting:
    """`add` is called on the event loop, `flush` on a thread."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._lock = threading.Lock()
        self._sums: dict[For, _Sum] = {}

    def add(self, key: For, *, full: int = 0, delta: int = 0, stood_for: int = 0) -> None:
        """Count bytes."""
        with self._lock:
            found = self._sums.get(key)
            if found is None:
                found = self._sums[key] = _Sum()
            found.full += full
            found.delta += delta
            found.stood_for += stood_for

    def flush(self) -> None:
        """Write what was counted; what cannot be written is kept for the next time."""
        with self._lock:
            sums, self._sums = self._sums, {}
        # in one order, so that processes that write the same rows do not wait for each other
        keys = sorted(sums)
        while keys:
            chunk = keys[:CHUNK]
            try:
                self._write({key: sums[key] for key in chunk})
            except BaseException:
                for key in keys:
                    s = sums[key]
                    self.add(key, full=s.full, delta=s.delta, stood_for=s.stood_for)
                raise
            del keys[:CHUNK]

    def _write(self, sums: dict[For, _Sum]) -> None:
        rows = [
            {**k._asdict(), "sent_full": s.full, "sent_delta": s.delta, "delta_for": s.stood_for}
            for k, s in sums.items()
        ]
        with self._db.write() as session:
            upsert(session, SentRow, rows, adding=("sent_full", "sent_delta", "delta_for"))
