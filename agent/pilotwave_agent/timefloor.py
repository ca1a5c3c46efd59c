"""Know the earliest moment it can be, whatever the device's clock says.

A clock that stands still or falls back to 1970 would keep expired metadata alive for ever. It
cannot be earlier than the release of this agent, nor than the moment at which documents were
signed that this device has verified. How such documents are verified is `trust`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

from pilotwave_protocol.fields import parse_time

# Rounded down to a year, so that a release never judges a slightly slow clock.
BUILD_FLOOR = datetime(2026, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True)
class TimeFloor:
    """What signed documents prove about the time, by how much their keys are trusted.

    `offline` comes from roles whose keys lie offline, `timestamp` from the online key. A stolen
    online key could push the second into the future; it goes when root replaces that key.
    """

    offline: datetime | None = None
    timestamp: datetime | None = None

    def raised(self, *, offline: list[datetime], timestamp: datetime | None) -> TimeFloor:
        """Return a floor that has also seen these moments; it never falls.

        A document cannot have been signed after the timestamp that vouches for it. Without that
        bound, one wrong date under an offline key would hold for ever.
        """
        if timestamp is None:
            return self
        moments = [min(m, timestamp) for m in offline]
        return TimeFloor(_latest(self.offline, *moments), _latest(self.timestamp, timestamp))

    def without_timestamp(self) -> TimeFloor:
        """Return the floor without what the online key claimed."""
        return replace(self, timestamp=None)

    def moment(self, build: datetime = BUILD_FLOOR) -> datetime:
        """Return the earliest moment that it can be now."""
        return _latest(build, self.offline, self.timestamp) or build


def _latest(*moments: datetime | None) -> datetime | None:
    return max((m for m in moments if m is not None), default=None)


def signed_at(fields: Mapping[str, Any], expires: datetime) -> datetime | None:
    """Read `signed_at` among a role's extra fields; a missing or impossible one proves nothing."""
    try:
        moment = parse_time(fields["signed_at"])
    except (KeyError, TypeError, ValueError):
        return None
    return moment if moment < expires else None
