"""Remember which devices polled, and write it down now and then: a poll itself writes nothing."""

from __future__ import annotations

from collections import deque
from datetime import datetime, timezone
from typing import Any

from sqlalchemy import bindparam, or_, update

from pilotwave_server.db import Database
from pilotwave_server.device_api.fleet_state import FleetState
from pilotwave_server.device_api.records import DeviceRecord
from pilotwave_server.devices.tables import DeviceRow

FLUSH_S = 60
CHUNK = 1000
MAX_PER_FLUSH = 50_000  # a large fleet is written over several rounds, its oldest notes first


class LastSeen:
    """Notes each device at most once a minute; `flush` writes them in chunks."""

    def __init__(self, db: Database, fleet: FleetState) -> None:
        self._db = db
        self._fleet = fleet
        self._noted: deque[str] = deque()

    def note(self, record: DeviceRecord) -> None:
        """Have this device written at the next flush."""
        record.noted = True
        self._noted.append(record.name)

    def flush(self) -> None:
        """Write what was noted."""
        left = min(len(self._noted), MAX_PER_FLUSH)
        while left > 0:
            count = min(left, CHUNK)
            self._write([self._noted.popleft() for _ in range(count)])
            left -= count

    def _write(self, names: list[str]) -> None:
        rows: list[dict[str, Any]] = []
        for name in names:
            record = self._fleet.records.get(name)
            if record is not None:
                record.noted = False
                seen = datetime.fromtimestamp(record.seen, timezone.utc)
                rows.append({"device": record.id, "seen": seen})
        if not rows:
            return
        d = DeviceRow
        here = d.id == bindparam("device")
        later = or_(d.last_seen.is_(None), d.last_seen < bindparam("seen"))
        # in order of id, as the check-ins lock theirs
        rows.sort(key=lambda row: row["device"])
        with self._db.write() as session:
            session.connection().execute(
                update(d).where(here, later).values(last_seen=bindparam("seen")), rows
            )
