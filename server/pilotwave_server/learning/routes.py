"""`/api/v1/learning/experiments`: carry training plans out, watch, steer, take results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import Path, Query, Response
from sqlalchemy import select

from pilotwave_server.blobs.port import BlobStore
from pilotwave_server.deps import (
    Ctx,
    Now,
    Operator,
    OperatorInBody,
    ReadSession,
    Viewer,
    WriteSession,
)
from pilotwave_server.errors import Conflict
from pilotwave_server.groups.service import GroupUnknown
from pilotwave_server.learning import experiments, finish, steer, views
from pilotwave_server.learning.experiments import (
    ExperimentNotPossible,
    ExperimentUnknown,
    PlanUnknown,
    WrongExperimentState,
)
from pilotwave_server.learning.masked.views import GroupsView, groups_view
from pilotwave_server.learning.permissions import OperatorOfExperiment
from pilotwave_server.learning.policy import read_policy
from pilotwave_server.learning.rounds import RoundUnknown, best_round, find_round
from pilotwave_server.learning.steer import RoundNotOpen
from pilotwave_server.learning.tables import UpdateRow
from pilotwave_server.learning.views import (
    NAME,
    ExperimentDetail,
    ExperimentRequest,
    ExperimentView,
    UpdateView,
)
from pilotwave_server.paging import BadCursor, Page, Paging
from pilotwave_server.problems import responses
from pilotwave_server.rollouts.policies.chosen import PolicyUnknown
from pilotwave_server.rollouts.policies.faults import PolicyInvalid
from pilotwave_server.routing import api_router
from pilotwave_server.scope import Touched, check_scope

router = api_router(tag="learning", prefix="/learning/experiments")
Experiment = Annotated[int, Path(ge=1, le=2**62)]
RoundNumber = Annotated[int | None, Query(ge=1, le=1000, description="Without it: the newest.")]


class NoResult(Conflict):
    """No round of the experiment is done."""

    code = "no_result"


@router.post(
    "",
    operation_id="start_experiment",
    status_code=201,
    summary="Have a group's devices learn by a plan",
    responses=responses(
        PlanUnknown, ExperimentNotPossible, GroupUnknown, PolicyUnknown, PolicyInvalid
    ),
)
def start(
    operator: OperatorInBody, session: WriteSession, now: Now, body: ExperimentRequest
) -> ExperimentDetail:
    """Those take part whose owners allow it. A plan has one experiment that did not fail and was
    not stopped."""
    check_scope(operator, Touched(body.model, [body.group]))
    policy = read_policy(name=body.policy, text=body.policy_text)
    named = {"model": body.model, "plan": body.plan, "group": body.group}
    made = experiments.start(session, **named, policy=policy, actor=str(operator), now=now)
    return views.detail(session, made, now=now)


@router.get(
    "",
    operation_id="list_experiments",
    summary="List experiments",
    responses=responses(BadCursor),
)
def list_experiments(
    viewer: Viewer,
    session: ReadSession,
    page: Paging,
    model: Annotated[str | None, Query(max_length=64, pattern=NAME)] = None,
) -> Page[ExperimentView]:
    """Newest first."""
    rows, cursor = experiments.list_of(session, model=model, page=page)
    return Page(items=views.summaries(session, rows), next_cursor=cursor)


@router.get(
    "/{experiment}",
    operation_id="show_experiment",
    summary="One experiment",
    responses=responses(ExperimentUnknown),
)
def show(
    experiment: Experiment, viewer: Viewer, session: ReadSession, now: Now
) -> ExperimentDetail:
    """Its state, its rounds with their figures, and who takes no part in the newest one."""
    return views.detail(session, experiments.find(session, experiment), now=now)


@router.get(
    "/{experiment}/devices",
    operation_id="list_experiment_devices",
    summary="List who took part in a round",
    responses=responses(ExperimentUnknown, RoundUnknown),
)
def list_devices(
    experiment: Experiment, viewer: Viewer, session: ReadSession, round: RoundNumber = None
) -> list[UpdateView]:
    """Each with its number of examples, and those that were left out with what they cost; the first
    10,000."""
    u = UpdateRow
    row = find_round(session, experiments.find(session, experiment), round)
    query = select(u).where(u.round_id == row.id).order_by(u.device).limit(10_000)
    return [UpdateView.model_validate(row) for row in session.scalars(query)]


@router.get(
    "/{experiment}/groups",
    operation_id="list_experiment_groups",
    summary="List the groups of a masked round",
    responses=responses(ExperimentUnknown, RoundUnknown),
)
def list_groups(
    experiment: Experiment, viewer: Viewer, session: ReadSession, round: RoundNumber = None
) -> GroupsView:
    """Each with its phase, and how far its members have come; and who waits for a group."""
    row = find_round(session, experiments.find(session, experiment), round)
    return groups_view(session, row)


@router.get(
    "/{experiment}/head",
    operation_id="get_experiment_head",
    summary="Take an experiment's result",
    response_class=Response,
    responses={
        200: {"content": {"application/octet-stream": {}}},
        **responses(ExperimentUnknown, NoResult),
    },
)
def head(experiment: Experiment, operator: Operator, session: ReadSession) -> Response:
    """The new last layer of its best round, unsigned: [features + 1, classes] as little-endian
    float32, row by row, the last row the bias."""
    row = experiments.find(session, experiment)
    best = best_round(session, row)
    if best is None:
        raise NoResult(f"experiment {experiment} is {row.state}, and no round of it is done")
    return Response(best.head, media_type="application/octet-stream")


@router.post(
    "/{experiment}/end",
    operation_id="end_experiment",
    status_code=204,
    summary="End an experiment's round now",
    responses=responses(ExperimentUnknown, RoundNotOpen),
)
def end(experiment: Experiment, operator: OperatorOfExperiment, context: Ctx, now: Now) -> None:
    """The result is worked out of what came, and the updates are deleted."""
    with context.db.write() as session:
        row = steer.end(session, experiment, actor=str(operator), now=now)
    finish.finish(context.db, context.get(BlobStore), row, now=now)


def _step(word: str, summary: str, told: str, take: Callable[..., None]) -> None:
    def step(
        experiment: Experiment, operator: OperatorOfExperiment, session: WriteSession, now: Now
    ) -> ExperimentDetail:
        take(session, experiment, actor=str(operator), now=now)
        return views.detail(session, experiments.find(session, experiment), now=now)

    router.post(
        f"/{{experiment}}/{word}",
        operation_id=f"{word}_experiment",
        summary=summary,
        description=told,
        responses=responses(ExperimentUnknown, WrongExperimentState),
    )(step)


_step(
    "pause",
    "Pause an experiment",
    "No device is asked until it is resumed; what still comes counts.",
    steer.pause,
)
_step("resume", "Resume an experiment", "Devices are asked again.", steer.resume)
_step(
    "stop",
    "Stop an experiment without a result",
    "The updates of its open round are deleted. Its plan may be started again.",
    steer.stop,
)
