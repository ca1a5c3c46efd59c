"""Who has seen more than this database holds: what devices report, held against what is here.

A device's report is its own word. What of it is acted upon, and how far, is `plan.py`'s to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session
from tuf.api.metadata import Root, Snapshot, Timestamp

from pilotwave_server.db import fleet_row
from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.registry import documents

SHOWN = 10
ASKED = 200
FORK = "directive_fork"
ROLLBACK = "metadata_rollback"
# how agents name a role that went back: their own memory's words, and python-tuf's. Of the two
# versions that they name the higher one is the device's.
_WENT_BACK = re.compile(
    r"(?:Expected )?([a-z0-9][a-z0-9._-]{0,79}?)(?:\.json version|: expected version) "
    r"(\d{1,16})[^\d]{1,20}(\d{1,16})"
)


class Numbers(NamedTuple):
    """The fleet's revision, which directives carry as `seq`, and the newest TUF versions."""

    seq: int = 0
    root: int = 0
    timestamp: int = 0
    snapshot: int = 0


NONE = Numbers()
COLUMNS: tuple[InstrumentedAttribute[int], ...] = (
    DeviceRow.directive_seq,
    DeviceRow.tuf_root,
    DeviceRow.tuf_timestamp,
    DeviceRow.tuf_snapshot,
)


@dataclass(frozen=True)
class Ahead:
    """What devices have seen that is not here. `highest` and `second` are the two highest numbers
    of each kind among all devices. `stray`: one has a directive that this server did not give, and
    whose number is not above the fleet's counter."""

    here: Numbers
    highest: Numbers = NONE
    second: Numbers = NONE
    devices: int = 0
    names: tuple[str, ...] = ()
    enrolled: int = 0
    stray: bool = False

    @property
    def sentence(self) -> str:
        """One sentence for a person, or nothing."""
        if not self.devices:
            return ""
        shown = ", ".join(self.names) + (" and others" if self.devices > len(self.names) else "")
        seen = [
            f"{kind.replace('seq', 'revision')} {theirs} (here {ours})"
            for kind, theirs, ours in zip(Numbers._fields, self.highest, self.here, strict=True)
            if theirs > ours
        ]
        if self.stray:
            seen.append("a directive that this server did not give")
        has = "1 device has" if self.devices == 1 else f"{self.devices} devices have"
        return f"{has} seen more than this server's database holds: {shown}; {', '.join(seen)}"


def numbers_here(session: Session) -> Numbers:
    """What this database holds."""
    newest = documents.newest(session)
    versions = [
        newest[role].version if role in newest else 0
        for role in (Root.type, Timestamp.type, Snapshot.type)
    ]
    return Numbers(fleet_row(session).revision, *versions)


def look(session: Session) -> Ahead:
    """Compare all enrolled devices with this database. Reads the table of devices once or twice."""
    here = numbers_here(session)
    if not here.root:
        return Ahead(here)
    d = DeviceRow
    # a directive's number is the fleet's or the device's, whichever changed last
    later = (d.directive_seq > fleet_row(session).fleet_revision) & (d.directive_seq > d.revision)
    # most devices refuse nothing, which is quick to see
    forked = d.refusal.is_not(None) & (d.refusal["reason"].as_string() == FORK)
    beyond = or_(later, forked, *_beyond(here))
    counted = select(func.count()).where(d.state == "enrolled")
    strays = session.scalar(counted.where(or_(later, forked), d.directive_seq <= here.seq)) or 0
    devices = session.scalar(counted.where(beyond)) or 0
    if not devices:
        return Ahead(here)
    names = select(d.name).where(d.state == "enrolled", beyond).order_by(d.name).limit(SHOWN)
    pairs = [_two_highest(session, column) for column in COLUMNS]
    return Ahead(
        here=here,
        highest=Numbers(*(first for first, _ in pairs)),
        second=Numbers(*(second for _, second in pairs)),
        devices=devices,
        names=tuple(session.scalars(names)),
        enrolled=session.scalar(counted) or 0,
        stray=strays > 0,
    )


def _beyond(here: Numbers) -> Iterable[ColumnElement[bool]]:
    return (column > number for column, number in zip(COLUMNS[1:], here[1:], strict=True))


def _two_highest(session: Session, column: InstrumentedAttribute[int]) -> tuple[int, int]:
    query = select(column).where(DeviceRow.state == "enrolled").order_by(column.desc()).limit(2)
    found = [*session.scalars(query), 0, 0]
    return found[0], found[1]


def roles_that_went_back(session: Session) -> dict[str, tuple[int, int]]:
    """By role, the version that devices have seen and the one here, where devices refuse metadata
    because a role is older than one they know."""
    newest, d = documents.newest(session), DeviceRow
    refusing = d.refusal.is_not(None) & (d.refusal["reason"].as_string() == ROLLBACK)
    query = select(d.refusal).where(d.state == "enrolled", refusing).order_by(d.id).limit(ASKED)
    found: dict[str, tuple[int, int]] = {}
    for refusal in session.scalars(query):
        said = _WENT_BACK.search(str((refusal or {}).get("detail", "")))
        role, seen = (said[1], max(int(said[2]), int(said[3]))) if said else ("", 0)
        if role in newest and role not in ONLINE and seen > newest[role].version:
            found[role] = (max(seen, found.get(role, (0, 0))[0]), newest[role].version)
    return dict(sorted(found.items()))


ONLINE = (Snapshot.type, Timestamp.type)
