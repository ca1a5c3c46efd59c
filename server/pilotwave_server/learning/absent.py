"""Who took no part in a round, or was left out of its result, and why: counts for people."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from pilotwave_server.learning.asked import ASKED, DECLINED, FAILED, silent_since
from pilotwave_server.learning.policy import stored_policy
from pilotwave_server.learning.states import OPEN
from pilotwave_server.learning.tables import AskedRow, ExperimentRow, RoundRow

NEVER_ASKED, WAITING, SILENT = "never_asked", "waiting", "silent"


@dataclass(frozen=True)
class Absent:
    """So many devices: `never_asked` (their owners allow nothing, or they did not come), `waiting`
    (asked a while ago), `silent` (asked longer ago than the policy's lease), `declined` or `failed`
    with their reason."""

    kind: str
    devices: int
    reason: str | None = None
    examples: int | None = None


def absent_of(
    session: Session, experiment: ExperimentRow, row: RoundRow, *, now: datetime
) -> list[Absent]:
    """Of one round. That devices were never asked is known of the open round alone."""
    found = list(_by_reason(session, row))
    a, since = AskedRow, silent_since(stored_policy(experiment.policy), now)
    asked = select(func.count()).where(a.round_id == row.id, a.state == ASKED)
    silent = session.scalar(asked.where(a.asked_at <= since)) or 0
    waiting = (session.scalar(asked) or 0) - silent
    if row.state != OPEN:
        silent, waiting = silent + waiting, 0
    never = experiment.wave_devices - row.devices - silent - waiting
    never = never - sum(one.devices for one in found) if row.state == OPEN else 0
    found += [Absent(SILENT, silent), Absent(WAITING, waiting), Absent(NEVER_ASKED, never)]
    return [one for one in found if one.devices > 0]


def _by_reason(session: Session, row: RoundRow) -> Iterator[Absent]:
    a = AskedRow
    query = select(a.state, func.count(), a.reason, a.examples)
    query = query.where(a.round_id == row.id, a.state.in_((DECLINED, FAILED)))
    query = query.group_by(a.state, a.reason, a.examples).order_by(a.state, func.count().desc())
    for state, count, reason, examples in session.execute(query).tuples():
        yield Absent(state, count, reason, examples)
