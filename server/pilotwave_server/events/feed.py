"""One line of events out of two tables: the audit log, and what became of versions on devices.

A place in it is a `Cursor`, the last row number of each table. From the second table come
`device.switched`, `device.healthy`, `device.failed`, `device.rolled_back` and `device.drifted`;
every other type is a verb of the audit log, as `rollout.pause`. Which rows may be read is
`settled.py`'s to say.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from pilotwave_protocol.fields import format_time
from pilotwave_server.audit.tables import AuditEventRow
from pilotwave_server.devices.report_tables import DeviceHistoryRow
from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.errors import Invalid
from pilotwave_server.telemetry.history import KINDS

BECAME = frozenset(f"device.{kind}" for kind in KINDS)
PATTERN = r"\*|[a-z][a-z_]{0,31}\.(?:\*|[a-z][a-z_]{0,31})"
MAX_PATTERNS = 32


class BadEventCursor(Invalid):
    """Not a place in this fleet's line of events."""

    code: ClassVar[str] = "bad_event_cursor"


class BadEventType(Invalid):
    code: ClassVar[str] = "bad_event_type"


class Cursor(NamedTuple):
    """The last row read of each table. As text `<audit>.<history>`."""

    audit: int
    history: int

    def __str__(self) -> str:
        return f"{self.audit}.{self.history}"

    def covers(self, other: Cursor) -> bool:
        """Whether everything up to `other` lies before this place."""
        return self.audit >= other.audit and self.history >= other.history

    def furthest(self, other: Cursor) -> Cursor:
        """The place behind everything that lies before this one or `other`."""
        return Cursor(max(self.audit, other.audit), max(self.history, other.history))


START = Cursor(0, 0)


@dataclass(frozen=True)
class Event:
    """One event. `id` is `a<row>` or `h<row>`, the same for everybody who is told of it."""

    id: str
    row: int
    type: str
    at: datetime
    actor: str
    object: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None

    def after_cursor(self, cursor: Cursor) -> Cursor:
        """The place behind this event for somebody who stood at `cursor`."""
        moved = {"audit" if self.id[0] == "a" else "history": self.row}
        return cursor._replace(**moved)

    def lies_behind(self, cursor: Cursor) -> bool:
        """Whether somebody who stands at `cursor` has still to be told of it."""
        return self.row > (cursor.audit if self.id[0] == "a" else cursor.history)

    @cached_property
    def document(self) -> str:
        """The event as JSON: what a stream's `data` and a webhook's body hold."""
        data = {k: getattr(self, k) for k in ("actor", "object", "before", "after")}
        shown = {"id": self.id, "type": self.type, "timestamp": format_time(self.at), "data": data}
        return json.dumps(shown, separators=(",", ":"), ensure_ascii=False)


class Types:
    """Which types somebody wants: exact ones, `rollout.*`, or `*`. Empty means each."""

    def __init__(self, patterns: Sequence[str]) -> None:
        for pattern in patterns:
            if not re.fullmatch(PATTERN, pattern):
                raise BadEventType(
                    "expected a type of event as `rollout.pause`, `rollout.*` or `*`; "
                    f"got {ascii(pattern)[:60]}"
                )
        if len(patterns) > MAX_PATTERNS:
            raise BadEventType(f"expected at most {MAX_PATTERNS} types; got {len(patterns)}")
        self.patterns = tuple(dict.fromkeys(patterns))
        self._all = not patterns or "*" in patterns
        self._families = {p[:-2] for p in patterns if p.endswith(".*")}
        self._exact = frozenset(patterns)

    def __contains__(self, type: object) -> bool:
        found = str(type)
        return self._all or found in self._exact or found.partition(".")[0] in self._families

    @property
    def of_devices(self) -> bool:
        """Whether any of the types that devices' reports make is among them."""
        return any(type in self for type in BECAME)


def newest(session: Session) -> Cursor:
    """The place behind the last rows that this session can see."""
    a, h = AuditEventRow, DeviceHistoryRow
    return Cursor(
        session.scalar(select(func.max(a.id))) or 0, session.scalar(select(func.max(h.id))) or 0
    )


def read_cursor(text: str) -> Cursor:
    """The place that a stream's `id` names. BadEventCursor."""
    found = re.fullmatch(r"(\d{1,18})\.(\d{1,18})", text, re.ASCII)
    if found is None:
        raise BadEventCursor("expected the id of an event of this stream, as 120.4531")
    return Cursor(int(found[1]), int(found[2]))


def read_events(
    session: Session, types: Types, *, after: Cursor, until: Cursor, limit: int
) -> tuple[list[Event], Cursor]:
    """Some events behind `after` and up to `until`, and the place behind them.

    They may be fewer than there are, even none: it is over when the place covers `until`.
    """
    a, h = AuditEventRow, DeviceHistoryRow
    lines = select(a).where(a.id > after.audit, a.id <= until.audit).order_by(a.id).limit(limit)
    audit = [_of_audit(row) for row in session.scalars(lines)]
    history: list[Event] = []
    if types.of_devices:
        rows = (
            select(h, DeviceRow.name)
            .join(DeviceRow, DeviceRow.id == h.device_id)
            .where(h.id > after.history, h.id <= until.history)
        )
        found = session.execute(rows.order_by(h.id).limit(limit))
        history = [_of_history(row, device) for row, device in found]
    place = Cursor(_reached(audit, until.audit, limit), _reached(history, until.history, limit))
    return [event for event in (*audit, *history) if event.type in types], place


def _reached(found: Sequence[Event], until: int, limit: int) -> int:
    return found[-1].row if len(found) == limit else until


def _of_audit(row: AuditEventRow) -> Event:
    return Event(
        f"a{row.id}", row.id, row.verb, row.at, row.actor, row.object, row.before, row.after
    )


def _of_history(row: DeviceHistoryRow, device: str) -> Event:
    became = {"model": row.model, "version": row.version, "reason": row.reason}
    if row.detail is not None:
        became["detail"] = row.detail
    who = f"device/{device}"
    return Event(f"h{row.id}", row.id, f"device.{row.became}", row.at, who, who, None, became)
