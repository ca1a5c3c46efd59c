"""Read what sites are allowed, over and over: at once where it was set, soon where others did."""

from __future__ import annotations

from pilotwave_server.db import Database
from pilotwave_server.downloads.admission import Admission
from pilotwave_server.downloads.sites import read_limits
from pilotwave_server.workers import Periodic

LOOK_S = 2.0


class LimitsWatch(Periodic):
    """Tells the desk. The first look comes with the start."""

    def __init__(self, db: Database, desk: Admission) -> None:
        super().__init__("site-limits", self._look, interval_s=LOOK_S)
        self._db = db
        self._desk = desk
        self.wake()

    def _look(self) -> None:
        with self._db.read() as session:
            self._desk.limit(read_limits(session))
