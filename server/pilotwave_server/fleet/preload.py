"""Load the enrolled devices into memory when a server process starts, so that the first polls after
a restart, which all come at once, find them there.

A device that polls sooner is loaded by its poll (`Loader`); both may be done at the same time.
"""

from __future__ import annotations

import logging
import threading
import time

from sqlalchemy import select

from pilotwave_server.db import Database
from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.fleet.state import FleetState
from pilotwave_server.workers import step_back

log = logging.getLogger(__name__)

CHUNK = 500
REST = 0.5  # times as long as a chunk took: the rest of the machine is for those that poll already


class Preload:
    """Runs once, on a thread of its own."""

    def __init__(self, db: Database, fleet: FleetState) -> None:
        self._db = db
        self._fleet = fleet
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="preload", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        step_back()
        try:
            self.load_all()
        except Exception:
            log.exception("devices were not loaded beforehand; each is when it polls")

    def load_all(self) -> None:
        """Load every enrolled device that is not in memory yet."""
        after = 0
        while not self._stopping.is_set():
            began = time.monotonic()
            found = self._next(after)
            if not found:
                return
            after = max(found)
            unknown = [n for n in found.values() if n not in self._fleet.records]
            if unknown:
                self._fleet.load(unknown)
            self._stopping.wait(REST * (time.monotonic() - began))

    def _next(self, after: int) -> dict[int, str]:
        d = DeviceRow
        enrolled = select(d.id, d.name).where(d.state == "enrolled", d.id > after)
        with self._db.read() as session:
            rows = session.execute(enrolled.order_by(d.id).limit(CHUNK)).tuples().all()
        return dict(rows)
