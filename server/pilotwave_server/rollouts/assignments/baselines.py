"""Assign a version to a group at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import ClassVar

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from pilotwave_server.audit.service import record
from pilotwave_server.db import touch_fleet
from pilotwave_server.errors import NotFound
from pilotwave_server.groups.service import get_group
from pilotwave_server.groups.tables import GroupRow
from pilotwave_server.registry.publish import ModelUnknown
from pilotwave_server.registry.tables import ModelRow
from pilotwave_server.rollouts import end_removals
from pilotwave_server.rollouts.assignments import capacity
from pilotwave_server.rollouts.assignments.offerable import check_may_be_offered
from pilotwave_server.rollouts.assignments.snapshot import DeviceView, FleetSnapshot
from pilotwave_server.rollouts.policies.choose import Choose
from pilotwave_server.rollouts.policies.stored import store_choose
from pilotwave_server.rollouts.states import RolloutState
from pilotwave_server.rollouts.tables import BaselineRow, RolloutRow


class NoBaseline(NotFound):
    code: ClassVar[str] = "no_baseline"


def set_baseline(
    session: Session,
    snapshot: FleetSnapshot,
    *,
    group: str,
    model: str,
    version: str,
    actor: str,
    now: datetime,
    together: Sequence[str] = (),
    choose: Choose | None = None,
) -> BaselineRow:
    """Have a group run a version from now on.

    GroupUnknown, ModelUnknown, VersionUnknown, VersionNotOffered, TooManyModels. What the group was
    to run before stays as what to fall back on, but only where it is older: who goes back to 1.1.0
    after 1.2.0 does not want 1.2.0 again should 1.1.0 be denied. What aborted rollouts left ends
    too. Devices change it in one with the models of `together`, and get their variant by `choose`.
    """
    tied = sorted({*together} - {model})
    by = None if choose is None else store_choose(choose)
    row = get_group(session, group, lock=True)
    anyone_in_it = DeviceView(name="", groups=frozenset({row.id}))
    check_may_be_offered(session, snapshot, anyone_in_it, model=model, version=version)
    standing = _standing(session, row, model)
    before = standing[0] if standing else None
    wanted = (version, tied, by)
    same = before and (before.version, before.together or [], before.choose) == wanted
    if before is not None and same and not _left(session, before):
        return before
    capacity.check_group(session, snapshot, row, model)
    counter = snapshot.versions[model, version].counter
    for old in standing:
        if old.counter >= counter:
            old.ended_at = now
    end_removals.end_for_group(session, row.id, model)
    baseline = BaselineRow(
        group_id=row.id,
        model=model,
        version=version,
        counter=counter,
        revision=touch_fleet(session),
        set_by=actor,
        set_at=now,
        together=tied or None,
        choose=by,
    )
    session.add(baseline)
    _note(session, row, model, "baseline.set", before, baseline, actor, now)
    return baseline


def check_tied(session: Session, models: Iterable[str]) -> None:
    """Return if there are such models, or ModelUnknown."""
    for model in models:
        if session.get(ModelRow, model) is None:
            raise ModelUnknown(model)


def end_baseline(session: Session, *, group: str, model: str, actor: str, now: datetime) -> None:
    """Have a group say nothing of a model any more. Devices keep what they run. NoBaseline."""
    row = get_group(session, group, lock=True)
    standing = _standing(session, row, model)
    if not standing:
        raise NoBaseline(f"{group} has no version of {model} assigned")
    for old in standing:
        old.ended_at = now
    touch_fleet(session)
    _note(session, row, model, "baseline.end", standing[0], None, actor, now)


def list_baselines(session: Session, *, group: str) -> list[BaselineRow]:
    """What a group is to run now, by model. GroupUnknown."""
    row = get_group(session, group)
    newest: dict[str, BaselineRow] = {}
    for baseline in _standing(session, row):
        newest.setdefault(baseline.model, baseline)
    return [newest[model] for model in sorted(newest)]


def _standing(session: Session, row: GroupRow, model: str | None = None) -> list[BaselineRow]:
    """The group's baselines that were not ended, newest first."""
    b = BaselineRow
    query = select(b).where(b.group_id == row.id, b.ended_at.is_(None))
    if model is not None:
        query = query.where(b.model == model)
    return list(session.scalars(query.order_by(b.revision.desc(), b.id.desc())))


def _left(session: Session, baseline: BaselineRow) -> bool:
    """Whether a rollout was aborted since, so that devices may run its version in the group."""
    r = RolloutRow
    aborted = exists().where(
        r.group_id == baseline.group_id,
        r.model == baseline.model,
        r.state == str(RolloutState.ABORTED),
        r.revision > baseline.revision,
    )
    return bool(session.scalar(select(aborted)))


def _note(
    session: Session,
    row: GroupRow,
    model: str,
    verb: str,
    before: BaselineRow | None,
    after: BaselineRow | None,
    actor: str,
    now: datetime,
) -> None:
    def told(baseline: BaselineRow | None) -> dict[str, str | None]:
        return {"model": model, "version": None if baseline is None else baseline.version}

    record(
        session,
        actor=actor,
        verb=verb,
        object=f"group/{row.name}",
        now=now,
        before=told(before),
        after=told(after),
    )
