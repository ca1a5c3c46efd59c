"""What operators do with a rollout once it is there, each word a function.

The engine does the rest by itself; both go through `service.transition`.
"""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from pilotwave_server.db import lock_fleet
from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.errors import Conflict, Forbidden
from pilotwave_server.rollouts.assignments.offerable import check_may_be_offered
from pilotwave_server.rollouts.assignments.snapshot import DeviceView, FleetSnapshot
from pilotwave_server.rollouts.choice.store import forget_own_failures
from pilotwave_server.rollouts.leases import DID_NOT, EXPIRED, revise
from pilotwave_server.rollouts.operate.create import check_servers_know, check_way_is_free
from pilotwave_server.rollouts.policies.stored import stored_policy
from pilotwave_server.rollouts.states import OFFERING, RolloutState
from pilotwave_server.rollouts.tables import RolloutDeviceRow, RolloutRow
from pilotwave_server.rollouts.transitions import (
    WrongRolloutState,
    get_rollout,
    group_of,
    name_of,
    open_wave,
    transition,
)
from pilotwave_server.rollouts.transitions import roll_back as take_back

CHUNK = 500


class OwnRollout(Forbidden):
    """Who created the rollout cannot approve it."""

    code: ClassVar[str] = "own_rollout"


class NothingToRetry(Conflict):
    code: ClassVar[str] = "nothing_to_retry"


def approve(
    session: Session, snapshot: FleetSnapshot, *, name: str, reason: str, actor: str, now: datetime
) -> RolloutRow:
    """Let a rollout go ahead that waits for a second person: it starts, now or when it is due.

    RolloutUnknown, WrongRolloutState, OwnRollout, VersionNotOffered, OlderHost, RolloutMoved.
    """
    row = _locked(session, name)
    _need(row, RolloutState.AWAITING_APPROVAL, "approved")
    if row.created_by == actor:
        raise OwnRollout(f"{name} was created by {actor}: somebody else has to approve it")
    later = row.start_at is not None and row.start_at > now
    if not later:
        _check_still_offered(session, snapshot, row)
    transition(
        session,
        row,
        RolloutState.SCHEDULED if later else RolloutState.RUNNING,
        action="approve",
        actor=actor,
        now=now,
        sentence=_told(f"approved by {actor}", reason),
        approved_by=actor,
        approved_at=now,
    )
    return row


def start(
    session: Session, snapshot: FleetSnapshot, *, name: str, reason: str, actor: str, now: datetime
) -> RolloutRow:
    """Start a draft, or a scheduled rollout before its time.

    RolloutUnknown, WrongRolloutState, RolloutInTheWay, VersionNotOffered, OlderHost, RolloutMoved.
    """
    row = _locked(session, name)
    if row.state == RolloutState.AWAITING_APPROVAL:
        raise WrongRolloutState(f"{name} waits for approval: `approve` starts it", state=row.state)
    if row.state == RolloutState.PAUSED:
        raise WrongRolloutState(f"{name} is paused: `resume` lets it go on", state=row.state)
    check_way_is_free(session, group_of(session, row), row.model, but=row.id)
    _check_still_offered(session, snapshot, row)
    sentence = _told(f"started by {actor}", reason)
    transition(
        session, row, RolloutState.RUNNING, action="start", actor=actor, now=now, sentence=sentence
    )
    return row


def pause(session: Session, *, name: str, reason: str, actor: str, now: datetime) -> RolloutRow:
    """Offer the version to no further device; those that took it keep it.

    RolloutUnknown, WrongRolloutState, RolloutMoved.
    """
    row = _locked(session, name)
    sentence = _told(f"paused by {actor}", reason)
    transition(
        session, row, RolloutState.PAUSED, action="pause", actor=actor, now=now, sentence=sentence
    )
    return row


def resume(
    session: Session, snapshot: FleetSnapshot, *, name: str, reason: str, actor: str, now: datetime
) -> RolloutRow:
    """Go on where it was paused, though a gate paused it: that one is not asked again in this wave.
    An end that has passed is lifted.

    RolloutUnknown, WrongRolloutState, VersionNotOffered, OlderHost, RolloutMoved.
    """
    row = _locked(session, name)
    _need(row, RolloutState.PAUSED, "resumed")
    _check_still_offered(session, snapshot, row)
    over = row.end_at is not None and row.end_at <= now
    transition(
        session,
        row,
        RolloutState.RUNNING,
        action="resume",
        actor=actor,
        now=now,
        sentence=_told(f"resumed by {actor}", reason),
        end_at=None if over else row.end_at,
    )
    return row


def next_wave(session: Session, *, name: str, reason: str, actor: str, now: datetime) -> RolloutRow:
    """Open the next wave by hand, whatever the open one's gates say.

    RolloutUnknown, WrongRolloutState, NoNextWave, RolloutMoved.
    """
    row = _locked(session, name)
    policy = stored_policy(row.document)
    index = row.wave + 1
    called = f" ({policy.waves[index].name})" if index < len(policy.waves) else ""
    open_wave(
        session,
        row,
        policy,
        index,
        action="next",
        actor=actor,
        now=now,
        sentence=_told(f"wave {index + 1}{called} opened by hand by {actor}", reason),
    )
    return row


def abort(session: Session, *, name: str, reason: str, actor: str, now: datetime) -> RolloutRow:
    """Stop offering, and leave what is installed.

    Devices that took the version keep it until their group is given another. RolloutUnknown,
    WrongRolloutState, RolloutMoved.
    """
    row = _locked(session, name)
    sentence = _told(f"aborted by {actor}", reason)
    transition(
        session, row, RolloutState.ABORTED, action="abort", actor=actor, now=now, sentence=sentence
    )
    return row


def roll_back(session: Session, *, name: str, reason: str, actor: str, now: datetime) -> RolloutRow:
    """Send the devices back to what they had, and quarantine the version for the group.

    RolloutUnknown, WrongRolloutState, RolloutMoved.
    """
    row = _locked(session, name)
    take_back(session, row, reason=_told(f"rolled back by {actor}", reason), actor=actor, now=now)
    return row


def retry_failed(
    session: Session, *, name: str, reason: str, actor: str, now: datetime
) -> tuple[RolloutRow, int]:
    """Let the devices on which the version failed try again; how many those are.

    They no longer count as failed, and are let in anew at the rollout's pace. RolloutUnknown,
    WrongRolloutState (it must run or be paused), NothingToRetry, RolloutMoved.
    """
    row = _locked(session, name)
    if RolloutState(row.state) not in OFFERING:
        raise WrongRolloutState(
            f"{name} is {row.state.replace('_', ' ')}: failed devices try again while it runs "
            "or is paused",
            state=row.state,
        )
    d = RolloutDeviceRow
    failed = d.rollout_id == row.id, d.outcome.in_(DID_NOT)
    ids = list(session.scalars(select(d.device_id).where(*failed).order_by(d.device_id)))
    if not ids:
        raise NothingToRetry(f"{name} failed on no device so far")
    transition(
        session,
        row,
        None,
        action="retry",
        actor=actor,
        now=now,
        sentence=_told(f"{len(ids)} failed devices try again, asked for by {actor}", reason),
        numbers={"devices": len(ids)},
        attempt=row.attempt + 1,
    )
    # what devices report before they hear of this is of the try before
    counts_from = lock_fleet(session).revision + 1
    session.execute(
        update(d).where(*failed).values(outcome=EXPIRED, changed_at=now, counts_from=counts_from),
        execution_options={"synchronize_session": False},
    )
    for begin in range(0, len(ids), CHUNK):
        some = ids[begin : begin + CHUNK]
        _raise_attempts(session, some, row.model)
        forget_own_failures(session, some, row.model)
    return row, len(ids)


def _raise_attempts(session: Session, device_ids: list[int], model: str) -> None:
    d = DeviceRow
    devices = session.scalars(
        select(d).where(d.id.in_(device_ids)).order_by(d.id).with_for_update()
    )
    for device in devices:
        device.attempts = {**device.attempts, model: int(device.attempts.get(model, 0)) + 1}
    session.flush()
    revise(session, device_ids)


def _locked(session: Session, name: str) -> RolloutRow:
    """The rollout, with the fleet held before it, as all who take steps do."""
    lock_fleet(session)
    return get_rollout(session, name)


def _need(row: RolloutRow, state: RolloutState, done: str) -> None:
    if row.state != state:
        words = row.state.replace("_", " ")
        raise WrongRolloutState(f"{name_of(row)} is {words}: it cannot be {done}", state=row.state)


def _check_still_offered(session: Session, snapshot: FleetSnapshot, row: RolloutRow) -> None:
    anyone_in_it = DeviceView(name="", groups=frozenset({row.group_id}))
    check_may_be_offered(session, snapshot, anyone_in_it, model=row.model, version=row.version)
    check_servers_know(session, stored_policy(row.document))


def _told(what: str, reason: str) -> str:
    return f"{what}: {reason}" if reason else what
