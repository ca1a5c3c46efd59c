"""Say when a device is silent: once it has missed three check-ins, by its own interval
(`intervals`), which is noted when it enrols and with each check-in (`DeviceRow.check_in_s`),
because the server's may have been changed since.

What is written in the database decides alone, so that every list, count and filter of every server
process says the same. Polls are written a little later than they come (`fleet/last_seen.py`), so
much is added.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Float, SQLColumnExpression, case, cast, func, literal
from sqlalchemy.orm import Session

from pilotwave_protocol.messages.facts import AGENT_PROFILE
from pilotwave_server.db import UtcDateTime
from pilotwave_server.devices.intervals import BATTERY, on_battery_s
from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.selector import compile_sql, parse
from pilotwave_server.settings import Settings

MISSED = 3
NOTE_S = 60.0
FLUSH_S = 5.0
"""How often what was noted of polls is written."""
_ON_BATTERY = parse(f"fact.{AGENT_PROFILE}={BATTERY}")


def note_interval_s(settings: Settings) -> float:
    """How long a device that polls is not noted again, in seconds: no longer than it may go
    unheard."""
    return min(NOTE_S, float(settings.check_in_interval_s))


@dataclass(frozen=True)
class Silence:
    """The rule at a moment. `interval_s` stands for devices of which it is not known what they were
    told; what was heard may be written `late_s` after that."""

    now: datetime
    interval_s: int
    late_s: float = 0.0

    def is_silent(self, row: DeviceRow) -> bool:
        """Whether a device is silent, if it is enrolled."""
        if row.last_seen is None:
            return True
        every_s = row.check_in_s or self.unknown_s(row.facts.get(AGENT_PROFILE))
        return row.last_seen + timedelta(seconds=MISSED * every_s + self.late_s) <= self.now

    def unknown_s(self, profile: object) -> int:
        """How often a device of this profile checks in of which that was not noted."""
        return on_battery_s(self.interval_s) if profile == BATTERY else self.interval_s

    def last_heard(self, every_s: int) -> datetime:
        """When at the latest a device was heard of that is silent now, with this interval."""
        return self.now - timedelta(seconds=MISSED * every_s + self.late_s)

    def heard(self, session: Session) -> ColumnElement[bool]:
        """The WHERE expression over devices heard of lately; null for those never seen."""
        return ~self.is_past(session, DeviceRow.last_seen)

    def is_past(self, session: Session, at: SQLColumnExpression[Any]) -> ColumnElement[bool]:
        """The WHERE expression over devices that are silent if they were last heard of `at`."""
        now = literal(self.now, UtcDateTime())
        ends = self.ends(session, at)
        return ends <= (now if _is_postgresql(session) else func.julianday(now))

    def ends(self, session: Session, at: SQLColumnExpression[Any]) -> ColumnElement[Any]:
        """When devices are silent that were last heard of `at`, as something to be sorted by."""
        quiet = self.quiet_s(session)
        if _is_postgresql(session):
            return at + func.make_interval(0, 0, 0, 0, 0, 0, quiet)
        return func.julianday(at) + quiet / 86_400.0

    def quiet_s(self, session: Session) -> ColumnElement[float]:
        """For how long each device may be unheard of, in seconds."""
        d, dialect = DeviceRow, session.get_bind().dialect.name
        on_battery = compile_sql(_ON_BATTERY, d.labels, d.facts, dialect=dialect)
        unknown = case((on_battery, self.unknown_s(BATTERY)), else_=self.unknown_s(None))
        # the facts are read for those alone of which nothing better is known
        every_s = case((d.check_in_s.is_not(None), d.check_in_s), else_=unknown)
        return cast(every_s * MISSED + self.late_s, Float)


def _is_postgresql(session: Session) -> bool:
    return session.get_bind().dialect.name == "postgresql"


def silence(settings: Settings, now: datetime) -> Silence:
    """The rule of this server at a moment."""
    # noted once in a while, then written at the next turn, which may itself be late
    late_s = note_interval_s(settings) + 2 * FLUSH_S
    return Silence(now, settings.check_in_interval_s, late_s)
