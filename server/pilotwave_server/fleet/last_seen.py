"""Remember which devices polled, and write it down bit by bit: a poll itself writes nothing.

A device is noted at most once a minute, or once in a check-in interval if that is shorter, and only
once until it is written; of a large fleet
`ROWS_PER_S` are written, one steady trickle: more would hold up the polls and check-ins beside it.
In a fleet of over 50,000 the time that is written is mostly that of the last check-in, which
writes it as well.
"""

from __future__ import annotations

import json
from collections import deque
from datetime import datetime, timezone
from typing import Any

from sqlalchemy import bindparam, text
from sqlalchemy.orm import Session

from pilotwave_server.db import Database
from pilotwave_server.devices.silence import FLUSH_S, NOTE_S
from pilotwave_server.fleet.records import DeviceRecord
from pilotwave_server.fleet.state import FleetState

NOTED = float("inf")
ROWS_PER_S = 100
CHUNK = 100

# One statement for a chunk: thousands of short ones would ask for the interpreter's lock each time,
# and polls would wait for it.
_SQLITE = text("""
    UPDATE devices SET last_seen = noted.seen
    FROM (SELECT json_extract(value, '$[0]') AS id, json_extract(value, '$[1]') AS seen
          FROM json_each(:rows)) AS noted
    WHERE devices.id = noted.id AND (last_seen IS NULL OR last_seen < noted.seen)
""")
# A device that is locked is most likely being written by its check-in, which says the same.
_POSTGRESQL = text("""
    UPDATE devices SET last_seen = noted.seen
    FROM unnest(CAST(:ids AS bigint[]), CAST(:seen AS timestamptz[])) AS noted (id, seen)
    WHERE devices.id = noted.id AND (last_seen IS NULL OR last_seen < noted.seen)
      AND devices.id IN (
        SELECT id FROM devices WHERE id = ANY(CAST(:ids AS bigint[])) FOR UPDATE SKIP LOCKED)
""").bindparams(bindparam("ids"), bindparam("seen"))


class LastSeen:
    """Notes each device at most once in `note_s`; `flush` writes the oldest notes."""

    def __init__(self, db: Database, fleet: FleetState, *, note_s: float = NOTE_S) -> None:
        self.note_s = note_s
        self._db = db
        self._fleet = fleet
        self._noted: deque[str] = deque()

    def note(self, record: DeviceRecord) -> None:
        """Have this device written, if it does not wait for that already."""
        if record.note_after != NOTED:
            record.note_after = NOTED
            self._noted.append(record.name)

    def flush(self) -> None:
        """Write what was noted, as far as one round goes."""
        count = min(len(self._noted), int(ROWS_PER_S * FLUSH_S))
        for begin in range(0, count, CHUNK):
            names = {self._noted.popleft() for _ in range(min(CHUNK, count - begin))}
            records = [r for r in map(self._fleet.records.get, names) if r is not None]
            for record in records:
                record.note_after = record.seen + self.note_s
            if records:
                with self._db.write() as session:
                    write_seen(session, {record.id: record.seen for record in records})


def write_seen(session: Session, rows: dict[int, float]) -> None:
    """Write when devices (by row number) were last seen, in seconds since 1970; never earlier than
    what is written already."""
    times = {id: datetime.fromtimestamp(seen, timezone.utc) for id, seen in sorted(rows.items())}
    given: dict[str, Any]
    if session.get_bind().dialect.name == "sqlite":
        # as the column keeps it (`UtcDateTime`), so that texts compare as times do
        plain = [(id, f"{seen:%Y-%m-%d %H:%M:%S.%f}") for id, seen in times.items()]
        statement, given = _SQLITE, {"rows": json.dumps(plain)}
    else:
        statement, given = _POSTGRESQL, {"ids": list(times), "seen": list(times.values())}
    session.connection().execute(statement, given)
