"""Tell of devices that fell silent and of those heard again, by the rule of `silence`.

Polls and check-ins do nothing for this. Each minute one process (`silence_watch`) asks for devices
that are to be told of, by the interval that they were told: there are few of those, and an index
over that and the time finds the devices without a look at the others. They are marked and told of
in one transaction, `CHUNK` of them with one event, so that a site that loses its line is one call
to a webhook; each of several has a line of its own in the log beside it. A mark is set only where
none is, so that two processes never tell the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, func, literal_column, select, update
from sqlalchemy.orm import Session

from pilotwave_server.audit.service import record
from pilotwave_server.db import Database
from pilotwave_server.devices.intervals import BATTERY
from pilotwave_server.devices.silence import Silence, silence
from pilotwave_server.devices.silence_watch import GAP, Watch, claim
from pilotwave_server.devices.tables import AWAITED, MISSED, DeviceRow
from pilotwave_server.settings import Settings

CHUNK = 5000
NAMED = 10
OF_EACH = {"device.silent": "device.fell_silent", "device.heard": "device.came_back"}
"""What the log says of each device of several that one event tells of."""
Rules = Sequence[ColumnElement[bool]]
_AWAITED: ColumnElement[bool] = literal_column(f"({AWAITED})")
_MISSED: ColumnElement[bool] = literal_column(f"({MISSED})")


class SilenceSweep:
    """The look of one server process. `listening` says since when devices would have been heard, by
    any process; by itself one knows it of its own only."""

    def __init__(
        self,
        db: Database,
        settings: Settings,
        clock: Callable[[], datetime],
        listening: Callable[[datetime], datetime] | None = None,
    ) -> None:
        self._db, self._settings, self._clock = db, settings, clock
        began = clock()
        self._listening = listening or (lambda now: began)

    def look(self) -> None:
        """Tell of what is new, if this minute is this process's."""
        now = self._clock()
        watch = claim(self._db, now=now)
        if watch is not None:
            self._tell_silent(silence(self._settings, now), watch)
            self._tell_heard(silence(self._settings, now))

    def _tell_silent(self, rule: Silence, watch: Watch) -> None:
        with self._db.read() as session:
            due = [
                rules
                for told in _intervals(session, _AWAITED)
                if not self._excuses(watch, rule, told)
                for rules in _silent(session, rule, told)
                if _is_any(session, rules)
            ]
        for rules in due:
            self._tell(rules, "device.silent", rule.now, since=rule.now)

    def _tell_heard(self, rule: Silence) -> None:
        with self._db.read() as session:
            every = [_heard(session, rule, told) for told in _intervals(session, _MISSED)]
            due = [rules for rules in every if _is_any(session, rules)]
        for rules in due:
            self._tell(rules, "device.heard", rule.now, since=None)

    def _excuses(self, watch: Watch, rule: Silence, told: int | None) -> bool:
        """Whether devices that were told this may not have been heard for the server's sake."""
        longest = rule.unknown_s(BATTERY) if told is None else told
        interval, late = timedelta(seconds=longest), timedelta(seconds=rule.late_s)
        # a stop too short to be seen in the watch is longer than the shortest intervals
        just_started = rule.now < self._listening(rule.now) + min(interval, GAP) + late
        return just_started or watch.excuses(interval, late=late, now=rule.now)

    def _tell(self, rules: Rules, verb: str, now: datetime, *, since: datetime | None) -> None:
        names = [""] * CHUNK
        while len(names) == CHUNK:
            with self._db.write() as session:
                names = _mark(session, rules, since)
                if names:
                    _record(session, verb, names, now)


def _intervals(session: Session, where: ColumnElement[bool]) -> Iterator[int | None]:
    """The intervals that these devices were told, and None: one step in the index for each."""
    yield None
    found = session.scalar(_next_interval(where, 0))
    while found is not None:
        yield found
        found = session.scalar(_next_interval(where, found))


def _next_interval(where: ColumnElement[bool], after: int) -> Select[tuple[int | None]]:
    told = DeviceRow.check_in_s
    return select(told).where(where, told > after).order_by(told).limit(1)


def _silent(session: Session, rule: Silence, told: int | None) -> Iterator[Rules]:
    """Which devices that were told this are silent, and not reported so yet. One that has just been
    let in (again) has an interval's grace, too."""
    d = DeviceRow
    at = rule.last_heard(rule.interval_s if told is None else told)
    enrolled_at = func.coalesce(d.enrolled_at, d.created_at, type_=d.enrolled_at.type)
    for seen in (d.last_seen <= at, d.last_seen.is_(None)):
        rules = [_AWAITED, _was_told(told), seen, enrolled_at <= at]
        if told is None:
            rules.append(rule.is_past(session, func.coalesce(d.last_seen, enrolled_at)))
        yield rules


def _heard(session: Session, rule: Silence, told: int | None) -> Rules:
    """Which devices that were told this are reported silent and are not so any more."""
    d = DeviceRow
    at = rule.last_heard(rule.interval_s if told is None else told)
    lately = d.last_seen > at if told is not None else ~rule.is_past(session, d.last_seen)
    return [_MISSED, _was_told(told), lately]


def _was_told(told: int | None) -> ColumnElement[bool]:
    # not IS NOT DISTINCT FROM, for which PostgreSQL takes no index
    column = DeviceRow.check_in_s
    return column.is_(None) if told is None else column == told


def _is_any(session: Session, rules: Rules) -> bool:
    return session.scalar(_found(rules).limit(1)) is not None


def _found(rules: Rules) -> Select[tuple[int]]:
    # without an order PostgreSQL takes many to be due, and reads the whole fleet to find none
    d = DeviceRow
    return select(d.id).where(*rules).order_by(d.check_in_s, d.last_seen)


def _mark(session: Session, rules: Rules, since: datetime | None) -> list[str]:
    """Mark a chunk of them; their names."""
    d = DeviceRow
    # one that is locked is most likely being written by its check-in: the next look sees it
    due = _found(rules).limit(CHUNK).with_for_update(skip_locked=True).cte("due")
    marked = update(d).where(d.id.in_(select(due.c.id))).values(silent_since=since)
    options = {"synchronize_session": False}
    return list(session.scalars(marked.returning(d.name), execution_options=options))


def _record(session: Session, verb: str, names: Sequence[str], now: datetime) -> None:
    told: dict[str, Any] = {"devices": len(names), "names": sorted(names)[:NAMED]}
    object = f"device/{names[0]}" if len(names) == 1 else "fleet"
    record(session, actor="server", verb=verb, object=object, now=now, after=told)
    for name in sorted(names) if len(names) > 1 else ():
        about, after = f"device/{name}", {"devices": len(names)}
        record(session, actor="server", verb=OF_EACH[verb], object=about, now=now, after=after)
