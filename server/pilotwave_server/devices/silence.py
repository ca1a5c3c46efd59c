"""Say when a device is silent: once it has missed three check-ins, by its own interval.

The interval is the server's; an agent on a battery (`profile = "battery"`) reports no more often
than every 15 minutes, and its fact `agent.profile` says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, or_
from sqlalchemy.orm import Session

from pilotwave_protocol.messages import AGENT_PROFILE, BATTERY_INTERVAL_S
from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.groups.selector import compile_sql, parse
from pilotwave_server.settings import Settings

MISSED = 3
LEAST = timedelta(seconds=30)
"""Polls are written down in a trickle: below this, a device could seem silent that is not."""
_ON_BATTERY = parse(f"fact.{AGENT_PROFILE}=battery")


@dataclass(frozen=True)
class Silence:
    """Since when a device must have been heard, and since when one on a battery."""

    since: datetime
    battery_since: datetime

    def is_silent(self, row: DeviceRow, last_seen: datetime | None) -> bool:
        """Whether an enrolled device that was last seen then is silent."""
        on_battery = row.facts.get(AGENT_PROFILE) == "battery"
        since = self.battery_since if on_battery else self.since
        return last_seen is None or last_seen <= since

    def heard(self, session: Session) -> ColumnElement[bool]:
        """The WHERE expression over devices that were heard of lately."""
        d = DeviceRow
        if self.battery_since >= self.since:
            return d.last_seen > self.since
        dialect = session.get_bind().dialect.name
        on_battery = compile_sql(_ON_BATTERY, d.labels, d.facts, dialect=dialect)
        return or_(d.last_seen > self.since, and_(d.last_seen > self.battery_since, on_battery))


def silence(settings: Settings, now: datetime) -> Silence:
    """The rule of this server at a moment."""
    interval = settings.check_in_interval_s
    quiet = max(MISSED * timedelta(seconds=interval), LEAST)
    battery = MISSED * timedelta(seconds=max(interval, BATTERY_INTERVAL_S))
    return Silence(now - quiet, now - max(quiet, battery))
