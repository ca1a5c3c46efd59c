"""Go on with experiments: open the next wave, or give up where too many devices failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from pilotwave_server.audit.service import record
from pilotwave_server.db import Database
from pilotwave_server.learning.asked import FAILED
from pilotwave_server.learning.experiments import find, move
from pilotwave_server.learning.policy import LearnPolicy, stored_policy
from pilotwave_server.learning.rounds import find_round
from pilotwave_server.learning.states import OPEN, ExperimentState
from pilotwave_server.learning.steer import forget_round
from pilotwave_server.learning.tables import AskedRow, ExperimentRow, RoundRow
from pilotwave_server.learning.waves import open_wave


@dataclass(frozen=True)
class Seen:
    """What is looked at: how many devices the open waves take, how many of them have answered in
    the round, since when the last wave is open, and who failed, by reason."""

    wave: int
    devices: int
    answered: int
    opened_at: datetime
    failed: Mapping[str, int]


def too_many_failed(policy: LearnPolicy, seen: Seen) -> str | None:
    """Say why the experiment has to be given up; None: it has not."""
    failed = sum(seen.failed.values())
    if policy.max_failed is None or failed <= policy.max_failed:
        return None
    each = ", ".join(f"{n} {reason}" for reason, n in sorted(seen.failed.items()))
    return f"{failed} devices failed, over max_failed {policy.max_failed}: {each}"


def next_wave(policy: LearnPolicy, seen: Seen, now: datetime) -> str | None:
    """Say why the next wave opens now; None: it does not, or there is none."""
    if seen.wave + 1 >= len(policy.waves):
        return None
    advance = policy.waves[seen.wave].advance
    share = seen.answered / seen.devices if seen.devices else 0.0
    if share >= advance.answered:
        return f"{seen.answered} of {seen.devices} answered, {advance.answered:.0%} or more"
    if now >= seen.opened_at + timedelta(seconds=advance.after_s):
        return f"{seen.answered} of {seen.devices} answered, and its time is over"
    return None


def advance_all(db: Database, *, now: datetime) -> None:
    """Look at each experiment that runs."""
    with db.read() as session:
        running = select(ExperimentRow.id).where(
            ExperimentRow.state == str(ExperimentState.RUNNING)
        )
        numbers = list(session.scalars(running))
    for number in numbers:
        with db.write() as session:
            _advance(session, find(session, number, lock=True), now=now)


def _advance(session: Session, experiment: ExperimentRow, *, now: datetime) -> None:
    row = find_round(session, experiment, None)
    if experiment.state != str(ExperimentState.RUNNING) or row.state != OPEN:
        return
    policy = stored_policy(experiment.policy)
    seen = Seen(
        wave=experiment.wave,
        devices=experiment.wave_devices,
        answered=row.devices,
        opened_at=experiment.wave_opened_at,
        failed=failed_in(session, experiment),
    )
    why = too_many_failed(policy, seen)
    if why is not None:
        move(session, experiment, ExperimentState.FAILED, actor="server", now=now, detail=why)
        forget_round(session, experiment, now=now)
        return
    why = next_wave(policy, seen, now)
    if why is not None:
        open_wave(session, experiment, policy, experiment.wave + 1, now=now)
        told = {"id": experiment.id, "wave": experiment.wave, "sentence": why}
        where = f"model/{experiment.model}"
        verb = "learning.open_wave"
        record(session, actor="server", verb=verb, object=where, now=now, after=told)


def failed_in(session: Session, experiment: ExperimentRow) -> dict[str, int]:
    """How many devices failed at the experiment, by reason."""
    a, r = AskedRow, RoundRow
    query = select(a.reason, func.count()).join(r, r.id == a.round_id).group_by(a.reason)
    query = query.where(r.experiment_id == experiment.id, a.state == FAILED)
    return {reason or "": count for reason, count in session.execute(query).tuples()}
