"""Make groups of the devices that sent keys, and take each through its phases to its sum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from pilotwave_protocol.errors import ProtocolError
from pilotwave_protocol.learning.masked.fixed_point import FixedPoint
from pilotwave_protocol.learning.masked.members import Members, verified_keys
from pilotwave_protocol.learning.masked.messages import Answer
from pilotwave_protocol.learning.plan import TrainingPlan
from pilotwave_protocol.learning.statistics import Statistics
from pilotwave_server.db import Database
from pilotwave_server.learning.check_numbers import ImpossibleUpdate, check_sums
from pilotwave_server.learning.experiments import find, plan_of
from pilotwave_server.learning.masked.members import rows_of
from pilotwave_server.learning.masked.phases import (
    AWAITED,
    GOING,
    Phase,
    Sent,
    before,
    has_sent,
    next_phase,
)
from pilotwave_server.learning.masked.tables import GroupRow, MemberRow
from pilotwave_server.learning.masked.unmask import unmask
from pilotwave_server.learning.states import OPEN
from pilotwave_server.learning.tables import RoundRow

PHASES = 8
"""A phase may take this part of the round's time: a device may be in two groups, of three each."""


def make_groups(session: Session, where: RoundRow, plan: TrainingPlan, *, now: datetime) -> None:
    """Put those that wait into a group, as soon as they are as many as the plan says."""
    m, count = MemberRow, plan.privacy.group
    waiting = select(m).where(m.round_id == where.id, m.group_id.is_(None))
    found = session.scalars(waiting.order_by(m.id).limit(count)).all()
    if len(found) < count:
        return
    made = GroupRow(
        round_id=where.id,
        digest=members_of(found).digest,
        phase=Phase.SHARES.value,
        ends_at=_end_of_phase(where, now),
    )
    session.add(made)
    session.flush()
    for member in found:
        member.group_id = made.id
    session.flush()


def members_of(rows: Sequence[MemberRow]) -> Members:
    """A group's members as they know each other."""
    return Members.listed([verified_keys(row.keys) for row in rows])


def go_on(
    session: Session, where: RoundRow, group: GroupRow, plan: TrainingPlan, *, now: datetime
) -> None:
    """Let a group's phase end where it can. `where` is locked."""
    phase, rows = Phase(group.phase), rows_of(session, group)
    awaited = AWAITED.get(phase)
    if awaited is None:
        return
    asked = sum(has_sent(Sent(row.sent), before(awaited)) for row in rows)
    sent = sum(has_sent(Sent(row.sent), awaited) for row in rows)
    threshold = plan.privacy.threshold
    over = group.ends_at <= now
    after = next_phase(phase, asked=asked, sent=sent, threshold=threshold, over=over)
    if after is phase:
        return
    if after is Phase.LOST:
        lose(session, group, f"{sent} of {threshold} or more sent {awaited.value}")
    elif after is Phase.DONE:
        _sum_up(session, where, group, plan, rows)
    else:
        group.phase, group.ends_at = after.value, _end_of_phase(where, now)


def go_on_all(db: Database, *, now: datetime) -> None:
    """End the phases whose time is over."""
    g = GroupRow
    late = select(g.id, g.round_id).where(g.phase.in_([p.value for p in GOING]), g.ends_at <= now)
    with db.read() as session:
        found = session.execute(late).tuples().all()
    for number, round_id in found:
        with db.write() as session:
            where = session.get_one(RoundRow, round_id, with_for_update=True)
            if where.state == OPEN:
                plan = plan_of(session, find(session, where.experiment_id))
                go_on(session, where, session.get_one(g, number), plan, now=now)


def forget(session: Session, round_id: int) -> None:
    """Lose the groups of a round that is over, and delete all that was sent in it."""
    g = GroupRow
    going = select(g).where(g.round_id == round_id, g.phase.in_([p.value for p in GOING]))
    for group in session.scalars(going):
        lose(session, group, "the round ended")
    session.execute(update(g).where(g.round_id == round_id).values(content=None))


def lose(session: Session, group: GroupRow, why: str) -> None:
    """End a group without a sum."""
    group.phase, group.detail = Phase.LOST.value, why[:512]
    _forget_messages(session, group)


def _forget_messages(session: Session, group: GroupRow) -> None:
    m = MemberRow
    gone = update(m).where(m.group_id == group.id).values(shares=None, numbers=None, answer=None)
    session.execute(gone)


def _sum_up(
    session: Session, where: RoundRow, group: GroupRow, plan: TrainingPlan, rows: list[MemberRow]
) -> None:
    """Take the masks off, keep the sum if it can be one of examples, and forget the rest."""
    left = [row for row in rows if has_sent(Sent(row.sent), Sent.INPUT)]
    try:
        total = _unmasked(session, plan, rows, left)
        devices, examples = len(left), round(total.examples)
        of_all = replace(
            plan,
            least_examples=devices * plan.least_examples,
            most_examples=devices * plan.most_examples,
        )
        check_sums(total, of_all, examples=examples)
    except (ProtocolError, ImpossibleUpdate) as error:
        lose(session, group, f"its sum is none of examples: {error}")
        return
    group.phase, group.content = Phase.DONE.value, total.to_bytes()
    group.devices, group.examples = devices, examples
    where.devices += devices
    where.examples += examples
    _forget_messages(session, group)


def _unmasked(
    session: Session, plan: TrainingPlan, rows: list[MemberRow], left: list[MemberRow]
) -> Statistics:
    m, members = MemberRow, members_of(rows)
    answers = [
        answer
        for row in left
        if row.answer is not None
        and isinstance(answer := members.read(row.answer, row.device), Answer)
    ]
    raw = (session.scalars(select(m.numbers).where(m.id == row.id)).one() or b"" for row in left)
    numbers = unmask(members, FixedPoint.of(plan), raw, answers)
    return Statistics.of(numbers, features=plan.features, classes=plan.classes)


def _end_of_phase(where: RoundRow, now: datetime) -> datetime:
    most: timedelta = (where.ends_at - where.opened_at) / PHASES
    return now + most
