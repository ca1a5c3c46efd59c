"""Change a rollout: every step goes through `transition`, which compares and sets its generation.

What steps there are says `states.py`; which one comes next, the engine (`engine/`) or an operator
(`operate/steer.py`). Here each one is taken at most once, however many want to take it: written
down as a decision, told to the audit log, and shown to the devices.

Locks are taken in this order: the fleet, the rollout, devices.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from pilotwave_server.audit.service import record
from pilotwave_server.db import touch_fleet
from pilotwave_server.errors import Conflict, NotFound
from pilotwave_server.groups.tables import GroupRow
from pilotwave_server.rollouts.leases import end_unused
from pilotwave_server.rollouts.policies.policy import Policy
from pilotwave_server.rollouts.states import OFFERING, OVER, RolloutState, may_follow
from pilotwave_server.rollouts.tables import (
    DecisionRow,
    QuarantineRow,
    RolloutRow,
    RolloutWaveRow,
)
from pilotwave_server.rollouts.waves import opened_threshold


class RolloutUnknown(NotFound):
    code: ClassVar[str] = "rollout_unknown"


class RolloutMoved(Conflict):
    """Somebody else decided about the rollout first. Look again."""

    code: ClassVar[str] = "rollout_moved"


class WrongRolloutState(Conflict):
    """The rollout's state does not allow the step. `state` says which it is in."""

    code: ClassVar[str] = "wrong_rollout_state"


class NoNextWave(Conflict):
    """The wave that was asked for is not the one after the last open one."""

    code: ClassVar[str] = "no_next_wave"


def name_of(rollout: RolloutRow) -> str:
    """Return what people and devices call it: `r17`."""
    return f"r{rollout.id}"


def get_rollout(session: Session, name: str) -> RolloutRow:
    """The rollout called `r<number>`, or RolloutUnknown."""
    number = name[1:]
    known = name[:1] == "r" and number.isascii() and number.isdigit() and len(number) < 19
    row = session.get(RolloutRow, int(number), populate_existing=True) if known else None
    if row is None or name_of(row) != name:
        raise RolloutUnknown(f"there is no rollout {name}")
    return row


def group_of(session: Session, rollout: RolloutRow) -> GroupRow:
    """The rollout's group. It cannot be deleted while the rollout is on the books."""
    return session.get_one(GroupRow, rollout.group_id)


def transition(
    session: Session,
    rollout: RolloutRow,
    to: RolloutState | None,
    *,
    action: str,
    actor: str,
    now: datetime,
    sentence: str,
    verdict: str | None = None,
    numbers: Mapping[str, Any] | None = None,
    judged: Mapping[str, Any] | None = None,
    **changes: Any,
) -> None:
    """Take one step from the state and generation that `rollout` was read in.

    `to` is None where the state stays; `changes` are further columns. `rollout` is read anew
    afterwards. `action` is one word: the audit log has it as `rollout.<action>`. `judged` are the
    verdicts that led to it, as plain JSON: the open wave keeps them, and a rollout that they pause
    or send back keeps them as its `failure`. A wave closes when the next one opens, and when its
    rollout offers nothing any more.

    WrongRolloutState if the table of states does not have the step; RolloutMoved if the row has
    changed since it was read. Neither leaves anything behind once the transaction is rolled back.
    """
    before, wave = RolloutState(rollout.state), rollout.wave
    after = before if to is None else to
    if to is not None and not may_follow(before, to):
        raise WrongRolloutState(
            f"{name_of(rollout)} is {_words(before)}, so it cannot become {_words(to)}",
            state=str(before),
        )
    if to is not None:
        changes = {**_by_state(rollout, before, to, actor, sentence, now), **changes}
    if judged is not None and after in (RolloutState.PAUSED, RolloutState.ROLLING_BACK):
        changes["failure"] = {**judged, "wave": wave}
    if changes_offers(before, after, changes):
        changes["revision"] = touch_fleet(session)
    _compare_and_set(session, rollout, {"state": str(after), **changes})
    _leave(session, rollout, wave, judged, now=now)
    if before is RolloutState.RUNNING and after is not before:
        end_unused(session, rollout.id, now=now)
    told = {"verdict": verdict, "numbers": dict(numbers or {}), "sentence": sentence[:1024]}
    _decide(session, rollout, action=action, actor=actor, now=now, **told)
    record(
        session,
        actor=actor,
        verb=f"rollout.{action}",
        object=f"rollout/{name_of(rollout)}",
        now=now,
        before={"state": str(before)},
        after={**_told(session, rollout), **told},
    )


def _leave(
    session: Session,
    rollout: RolloutRow,
    index: int,
    judged: Mapping[str, Any] | None,
    *,
    now: datetime,
) -> None:
    """Write down what became of the wave that was open before a step."""
    wave = session.get(RolloutWaveRow, (rollout.id, index), populate_existing=True)
    if wave is None:
        return
    if judged is not None:
        wave.verdict = dict(judged)
    if wave.closed_at is None and (rollout.wave != index or rollout.state not in OFFERING):
        wave.closed_at = now


def changes_offers(before: RolloutState, after: RolloutState, changes: Mapping[str, Any]) -> bool:
    """Say whether a step may change what any device is offered."""
    if before is not after:
        return before in OFFERING or after in OFFERING
    return before in OFFERING and not changes.keys().isdisjoint({"wave", "threshold"})


def _by_state(
    rollout: RolloutRow,
    before: RolloutState,
    to: RolloutState,
    actor: str,
    sentence: str,
    now: datetime,
) -> dict[str, Any]:
    """What a new state brings with it."""
    found: dict[str, Any] = {"reason": sentence[:1024]}
    if to is RolloutState.RUNNING:
        found["started_at"] = rollout.started_at or now
    if RolloutState.PAUSED in (before, to):
        found["paused_by"] = actor if to is RolloutState.PAUSED else None
    if to in OVER:
        found["ended_at"] = now
    return found


def _compare_and_set(session: Session, rollout: RolloutRow, values: Mapping[str, Any]) -> None:
    seen = rollout.generation
    session.flush()
    done = session.execute(
        update(RolloutRow)
        .where(RolloutRow.id == rollout.id, RolloutRow.generation == seen)
        .values(generation=seen + 1, **values)
        .returning(RolloutRow.id),
        execution_options={"synchronize_session": False},
    )
    if done.one_or_none() is None:
        raise RolloutMoved(f"{name_of(rollout)} has changed since: look at it again")
    session.refresh(rollout)


def _decide(
    session: Session, rollout: RolloutRow, *, actor: str, now: datetime, **decision: Any
) -> None:
    session.add(
        DecisionRow(
            rollout_id=rollout.id,
            generation=rollout.generation - 1,
            at=now,
            actor=actor,
            wave=rollout.wave,
            **decision,
        )
    )


def _told(session: Session, rollout: RolloutRow) -> dict[str, Any]:
    return {
        "state": rollout.state,
        "group": group_of(session, rollout).name,
        "model": rollout.model,
        "version": rollout.version,
        "wave": rollout.wave,
    }


def _words(state: RolloutState) -> str:
    return str(state).replace("_", " ")


def note_created(session: Session, rollout: RolloutRow, *, actor: str, now: datetime) -> None:
    """Write down that a rollout, just added, was created. Its row must have its number."""
    sentence = rollout.reason or ""
    told: dict[str, Any] = {"verdict": None, "numbers": {}, "sentence": sentence}
    _decide(session, rollout, action="create", actor=actor, now=now, **told)
    record(
        session,
        actor=actor,
        verb="rollout.create",
        object=f"rollout/{name_of(rollout)}",
        now=now,
        after={
            **_told(session, rollout),
            "policy": rollout.policy,
            "policy_version": rollout.policy_version,
            "sentence": sentence,
        },
    )


def open_wave(
    session: Session,
    rollout: RolloutRow,
    policy: Policy,
    index: int,
    *,
    actor: str,
    now: datetime,
    sentence: str,
    action: str = "open_wave",
    threshold: int | None = None,
    verdict: str | None = None,
    numbers: Mapping[str, Any] | None = None,
    judged: Mapping[str, Any] | None = None,
) -> None:
    """Open wave `index` (from 0), the one after the last open one, which is closed if it was not.

    `threshold` spares looking it up (`waves.opened_threshold`). WrongRolloutState
    unless the rollout runs, NoNextWave, RolloutMoved.
    """
    name = name_of(rollout)
    if rollout.state != RolloutState.RUNNING:
        state = RolloutState(rollout.state)
        raise WrongRolloutState(
            f"{name} is {_words(state)}: a wave opens while it runs", state=str(state)
        )
    if index != rollout.wave + 1 or index >= len(policy.waves):
        raise NoNextWave(f"{name} has {rollout.wave + 1} of its {len(policy.waves)} waves open")
    if threshold is None:
        group = group_of(session, rollout)
        threshold = opened_threshold(session, group, rollout, policy, index)
    switched = rollout.threshold
    threshold = threshold if policy.in_shadow(index) else max(threshold, switched)
    transition(
        session,
        rollout,
        None,
        action=action,
        actor=actor,
        now=now,
        sentence=sentence,
        verdict=verdict,
        numbers=numbers,
        judged=judged,
        wave=index,
        threshold=switched if policy.in_shadow(index) else threshold,
    )
    session.add(
        RolloutWaveRow(rollout_id=rollout.id, wave=index, threshold=threshold, opened_at=now)
    )


def roll_back(
    session: Session,
    rollout: RolloutRow,
    *,
    actor: str,
    now: datetime,
    reason: str,
    action: str = "rollback",
    verdict: str | None = None,
    numbers: Mapping[str, Any] | None = None,
    judged: Mapping[str, Any] | None = None,
) -> None:
    """Send the rollout's devices back, and keep its version from the group from now on.

    `reason` is the sentence on the rollout, on the quarantine and in the audit log.
    WrongRolloutState, RolloutMoved.
    """
    transition(
        session,
        rollout,
        RolloutState.ROLLING_BACK,
        action=action,
        actor=actor,
        now=now,
        sentence=reason,
        verdict=verdict,
        numbers=numbers,
        judged=judged,
    )
    quarantine(session, rollout, reason=reason, actor=actor, now=now)


def quarantine(
    session: Session, rollout: RolloutRow, *, reason: str, actor: str, now: datetime
) -> None:
    """Keep the rollout's version from its group; an older reason stays. The fleet is told by the
    step that this belongs to."""
    q = QuarantineRow
    same = (q.group_id == rollout.group_id, q.model == rollout.model, q.version == rollout.version)
    if session.scalar(select(q.id).where(*same)) is None:
        named = {"group_id": rollout.group_id, "model": rollout.model, "version": rollout.version}
        session.add(q(**named, reason=reason[:512], set_by=actor, set_at=now))
