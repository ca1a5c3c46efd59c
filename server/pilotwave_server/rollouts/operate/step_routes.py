"""The steps that operators take with a rollout, over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from pilotwave_server.deps import Ctx, Now, WriteSession
from pilotwave_server.errors import ServerError
from pilotwave_server.hosts.living import OlderHost
from pilotwave_server.problems import responses
from pilotwave_server.rollouts.assignments.load_snapshot import RememberedSnapshot, read_snapshot
from pilotwave_server.rollouts.assignments.offerable import VersionNotOffered
from pilotwave_server.rollouts.operate import present, steer
from pilotwave_server.rollouts.operate.create import CanaryGroupUnknown, RolloutInTheWay
from pilotwave_server.rollouts.operate.steer import NothingToRetry, OwnRollout
from pilotwave_server.rollouts.operate.views import (
    RetriedRollout,
    RollBackStep,
    RolloutDetail,
    RolloutName,
    StepRequest,
)
from pilotwave_server.rollouts.permissions import OperatorOfRollout
from pilotwave_server.rollouts.tables import RolloutRow
from pilotwave_server.rollouts.traces import note_wave, published_in
from pilotwave_server.rollouts.transitions import (
    NoNextWave,
    RolloutMoved,
    RolloutUnknown,
    WrongRolloutState,
    get_rollout,
)
from pilotwave_server.routing import api_router
from pilotwave_server.tracing import Traced

router = api_router(tag="rollouts", prefix="/rollouts")
STEP: tuple[type[ServerError], ...] = (RolloutUnknown, WrongRolloutState, RolloutMoved)


def _stepped(session: Session, row: RolloutRow, now: datetime) -> RolloutDetail:
    session.flush()
    return present.detail(session, row, now=now)


def _step(
    path: str,
    name: str,
    summary: str,
    told: str,
    take: Callable[..., RolloutRow],
    *errors: type[ServerError],
    offers: bool = False,
) -> Callable[..., RolloutDetail]:
    """Mount a step that needs no more than a reason. One that `offers` a version asks the fleet
    whether it still may."""

    def step(
        rollout: RolloutName,
        operator: OperatorOfRollout,
        session: WriteSession,
        now: Now,
        context: Ctx,
        traced: Traced,
        body: StepRequest,
    ) -> RolloutDetail:
        known = [read_snapshot(session, context.get(RememberedSnapshot))] if offers else []
        how: dict[str, Any] = {"reason": body.reason, "actor": str(operator), "now": now}
        before = get_rollout(session, rollout)
        trace = before.traceparent or published_in(session, before.model, before.version)
        with traced.span(f"{path} rollout", of=trace, rollout=rollout) as span:
            row = take(session, *known, name=rollout, **how)
            if span is not None and trace is None:
                row.traceparent = str(span)
        if path == "next":
            note_wave(traced.tracing, session, row)
        return _stepped(session, row, now)

    router.post(
        f"/{{rollout}}/{path}",
        operation_id=name,
        summary=summary,
        description=told,
        responses=responses(*STEP, *errors),
    )(step)
    return step


approve = _step(
    "approve",
    "approve_rollout",
    "Approve a rollout as a second person",
    "It starts at once, or when it is due. Not with the token that created it.",
    steer.approve,
    OwnRollout,
    VersionNotOffered,
    OlderHost,
    offers=True,
)
start = _step(
    "start",
    "start_rollout",
    "Start a rollout",
    "A draft, or a scheduled one before its time.",
    steer.start,
    RolloutInTheWay,
    VersionNotOffered,
    OlderHost,
    offers=True,
)
pause = _step(
    "pause",
    "pause_rollout",
    "Pause a rollout",
    "From the next poll on no further device is offered it. Those that took it keep it.",
    steer.pause,
)
resume = _step(
    "resume",
    "resume_rollout",
    "Resume a paused rollout",
    "It continues where it was paused.",
    steer.resume,
    VersionNotOffered,
    OlderHost,
    offers=True,
)
next_wave = _step(
    "next",
    "open_next_wave",
    "Open the next wave by hand",
    "Ignores the gates of the wave that is open.",
    steer.next_wave,
    NoNextWave,
    CanaryGroupUnknown,
)
abort = _step(
    "abort",
    "abort_rollout",
    "Abort a rollout",
    "Stops offering and leaves what is installed: devices that took the version keep it until\n"
    "their group is assigned another.",
    steer.abort,
)


@router.post(
    "/{rollout}/rollback",
    operation_id="roll_back_rollout",
    summary="Roll a rollout back",
    responses=responses(*STEP),
)
def roll_back(
    rollout: RolloutName,
    operator: OperatorOfRollout,
    session: WriteSession,
    now: Now,
    body: RollBackStep,
) -> RolloutDetail:
    """Sends its devices back to what they had and quarantines the version for the group."""
    how: dict[str, Any] = {"reason": body.reason, "actor": str(operator), "now": now}
    return _stepped(session, steer.roll_back(session, name=rollout, **how), now)


@router.post(
    "/{rollout}/retry",
    operation_id="retry_rollout",
    summary="Retry a rollout's failed devices",
    responses=responses(*STEP, NothingToRetry),
)
def retry(
    rollout: RolloutName,
    operator: OperatorOfRollout,
    session: WriteSession,
    now: Now,
    body: StepRequest,
) -> RetriedRollout:
    """They no longer count as failed and try again at their next poll."""
    how: dict[str, Any] = {"reason": body.reason, "actor": str(operator), "now": now}
    row, devices = steer.retry_failed(session, name=rollout, **how)
    shown = _stepped(session, row, now)
    return RetriedRollout(**shown.model_dump(), devices=devices)
