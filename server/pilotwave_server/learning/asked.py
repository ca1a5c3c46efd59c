"""Ask devices to take part in a round: who may be asked now, who was, what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

from sqlalchemy import and_, exists, func, or_, select
from sqlalchemy.orm import Session

from pilotwave_protocol.learning.plan import parse_plan
from pilotwave_server.db import Database, upsert
from pilotwave_server.devices.service import get_device
from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.groups.service import groups_of
from pilotwave_server.learning.masked.steps import is_awaited
from pilotwave_server.learning.policy import LearnPolicy, stored_policy
from pilotwave_server.learning.states import OPEN, ExperimentState
from pilotwave_server.learning.tables import AskedRow, ExperimentRow, RoundRow, UpdateRow
from pilotwave_server.learning.waves import is_in_wave
from pilotwave_server.registry.tables import PlanRow

ASKED, ANSWERED, DECLINED, FAILED = "asked", "answered", "declined", "failed"
AT_MOST = 8


@dataclass(frozen=True)
class Waiting:
    """An open round that a device may take part in, with its plan's bytes."""

    round: RoundRow
    experiment: ExperimentRow
    content: bytes
    asked: AskedRow | None

    @cached_property
    def policy(self) -> LearnPolicy:
        """Its experiment's."""
        return stored_policy(self.experiment.policy)

    def must_ask(self, now: datetime) -> bool:
        """Whether the device needs a place among those that are at it: a new one, or once it was
        silent for so long that another has taken its own."""
        if self.asked is None:
            return True
        paced = self.policy.pace.max_in_flight is not None and self.asked.state == ASKED
        return paced and self.asked.asked_at <= silent_since(self.policy, now)


def rounds_for(db: Database, device: str, *, now: datetime) -> list[Waiting]:
    """The rounds that wait for a device, which is noted as asked. DeviceUnknown.

    It writes where the device is asked for the first time, and not when it looks again.
    """
    with db.read() as session:
        row = get_device(session, device)
        found = waiting_for(session, row, now)
    fresh = [one for one in found if one.must_ask(now)]
    if not fresh:
        return found
    with db.write() as session:
        let_in = [one for one in fresh if _ask(session, one, row, now)]
    return [one for one in found if one in let_in or one not in fresh]


def waiting_for(session: Session, device: DeviceRow, now: datetime) -> list[Waiting]:
    """The open rounds of its groups' experiments whose open waves take the device, and which it
    has neither answered nor failed at."""
    u, r, e, a = UpdateRow, RoundRow, ExperimentRow, AskedRow
    answered = exists().where(u.round_id == r.id, u.device_id == device.id)
    query = (
        select(r, e, PlanRow.content, a)
        .join(e, e.id == r.experiment_id)
        .join(PlanRow, PlanRow.id == e.plan_id)
        .outerjoin(a, and_(a.round_id == r.id, a.device_id == device.id))
        .where(r.state == OPEN, r.ends_at > now, ~answered)
        .where(e.state == str(ExperimentState.RUNNING), or_(a.state.is_(None), a.state != FAILED))
        .order_by(r.id)
    )
    found = [Waiting(*one) for one in session.execute(query).tuples()]
    mine = {group.id for group in groups_of(session, device)} if found else set()
    return [
        one
        for one in found
        if one.experiment.group_id in mine
        and is_in_wave(one.experiment, device)
        and (
            not parse_plan(one.content).privacy.masked or is_awaited(session, one.round, device.id)
        )
    ][:AT_MOST]


def _ask(session: Session, one: Waiting, device: DeviceRow, now: datetime) -> bool:
    most = one.policy.pace.max_in_flight
    if most is not None:
        session.get(RoundRow, one.round.id, with_for_update=True)  # one at a time
        if _in_flight(session, one, now, most) >= most:
            return False
    note(session, one.round.id, device, ASKED, wave=one.experiment.wave, now=now)
    return True


def _in_flight(session: Session, one: Waiting, now: datetime, most: int) -> int:
    """How many devices are at it, counted up to `most`."""
    a = AskedRow
    fresh = a.asked_at > silent_since(one.policy, now)
    some = select(a.device_id).where(a.round_id == one.round.id, a.state == ASKED, fresh)
    return session.scalar(select(func.count()).select_from(some.limit(most).subquery())) or 0


def silent_since(policy: LearnPolicy, now: datetime) -> datetime:
    """Who was asked before this and said nothing is silent."""
    return now - timedelta(seconds=policy.deadlines.lease_s)


def note(
    session: Session,
    round_id: int,
    device: DeviceRow,
    state: str,
    *,
    now: datetime,
    wave: int = 0,
    reason: str | None = None,
    examples: int | None = None,
) -> None:
    """Write down what came of asking a device. What has answered stays so."""
    row = {
        "round_id": round_id,
        "device_id": device.id,
        "device": device.name,
        "wave": wave,
        "state": state,
        "reason": reason,
        "examples": examples,
        "asked_at": now,
        "changed_at": now,
    }
    told = ["state", "reason", "examples", "changed_at"]
    changing = [*told, "asked_at"] if state == ASKED else told
    upsert(session, AskedRow, [row], changing=changing, where=AskedRow.state != ANSWERED)


def counts(session: Session, rounds: Sequence[RoundRow]) -> dict[int, dict[str, int]]:
    """How many devices of each round did not answer, by the round's row and their state. Those
    that did are most of them, and are counted on the round's row."""
    a = AskedRow
    query = select(a.round_id, a.state, func.count()).group_by(a.round_id, a.state)
    query = query.where(a.state.in_((ASKED, DECLINED, FAILED)))
    found: dict[int, dict[str, int]] = {}
    for number, state, count in session.execute(
        query.where(a.round_id.in_([r.id for r in rounds]))
    ):
        found.setdefault(number, {})[state] = count
    return found
