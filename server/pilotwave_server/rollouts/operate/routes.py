"""Rollouts over HTTP: create, preview, steer, look."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query
from sqlalchemy.orm import Session

from pilotwave_server.deps import Ctx, Now, OperatorInBody, ReadSession, Viewer, WriteSession
from pilotwave_server.errors import ServerError
from pilotwave_server.fields import GroupName, ModelName
from pilotwave_server.groups.service import GroupUnknown, get_group
from pilotwave_server.hosts.living import OlderHost
from pilotwave_server.paging import BadCursor, CountedPage, Page, PageRequest, Paging, count_rows
from pilotwave_server.problems import responses
from pilotwave_server.registry.publish import ModelUnknown
from pilotwave_server.registry.service import VersionUnknown, get_version
from pilotwave_server.rollouts.assignments.capacity import TooManyModels
from pilotwave_server.rollouts.assignments.load_snapshot import RememberedSnapshot, read_snapshot
from pilotwave_server.rollouts.assignments.offerable import VersionNotOffered
from pilotwave_server.rollouts.assignments.snapshot import FleetSnapshot
from pilotwave_server.rollouts.operate import present, queries
from pilotwave_server.rollouts.operate.create import (
    BadTimes,
    CanaryGroupUnknown,
    NewRollout,
    NobodyThere,
    NoVariantFits,
    RolloutInTheWay,
    check_wish,
    create_rollout,
    warnings,
)
from pilotwave_server.rollouts.operate.views import (
    CreatedRollout,
    DecisionView,
    Outcome,
    PlanRequest,
    PreviewRequest,
    PreviewView,
    RolloutDetail,
    RolloutDeviceView,
    RolloutName,
    RolloutRequest,
    RolloutSummary,
)
from pilotwave_server.rollouts.policies.chosen import OnePolicy, PolicyUnknown, chosen_policy
from pilotwave_server.rollouts.policies.faults import PolicyInvalid
from pilotwave_server.rollouts.policies.stored import stored_policy
from pilotwave_server.rollouts.states import RolloutState
from pilotwave_server.rollouts.tables import RolloutRow
from pilotwave_server.rollouts.traces import published_in
from pilotwave_server.rollouts.transitions import (
    RolloutUnknown,
    get_rollout,
    group_of,
)
from pilotwave_server.rollouts.waves import BadSalt, draw_salt, read_salt
from pilotwave_server.routing import api_router
from pilotwave_server.scope import Touched, check_scope
from pilotwave_server.tracing import Traced

router = api_router(tag="rollouts", prefix="/rollouts")
PLAN: tuple[type[ServerError], ...] = (
    GroupUnknown,
    ModelUnknown,
    VersionUnknown,
    PolicyUnknown,
    OnePolicy,
    PolicyInvalid,
    BadSalt,
    CanaryGroupUnknown,
)
WaveNumber = Annotated[
    int | None, Query(ge=0, le=99, description="Only devices that this wave takes, from 0.")
]


def _snapshot(session: Session, context: Ctx) -> FleetSnapshot:
    return read_snapshot(session, context.get(RememberedSnapshot))


def _wish(session: Session, body: PlanRequest, **more: Any) -> NewRollout:
    policy, version = chosen_policy(
        session,
        name=body.policy,
        version=body.policy_version,
        document=body.document,
        text=body.policy_text,
    )
    return NewRollout(
        group=body.group,
        model=body.model,
        version=body.version,
        policy=policy,
        policy_version=version,
        start_at=body.start_at,
        end_at=body.end_at,
        allow_empty=body.allow_empty,
        salt=None if body.salt is None else read_salt(body.salt),
        **more,
    )


@router.get("", summary="List rollouts", responses=responses(BadCursor, GroupUnknown, ModelUnknown))
def list_rollouts(
    viewer: Viewer,
    session: ReadSession,
    page: Paging,
    group: Annotated[GroupName | None, Query(description="Only those to this group.")] = None,
    model: Annotated[ModelName | None, Query(description="Only those of this model.")] = None,
    state: Annotated[RolloutState | None, Query(description="Only those in this state.")] = None,
) -> CountedPage[RolloutSummary]:
    """The newest first."""
    rules = queries.rules_of(session, group=group, model=model, state=state)
    rows, cursor = queries.list_rollouts(session, page=page, rules=rules)
    names = queries.group_names(session, rows)
    items = [present.summary(row, names[row.group_id]) for row in rows]
    total = count_rows(session, RolloutRow, *rules)
    return CountedPage(items=items, next_cursor=cursor, total=total)


@router.post(
    "",
    operation_id="create_rollout",
    status_code=201,
    summary="Create a rollout",
    responses=responses(
        *PLAN,
        BadTimes,
        VersionNotOffered,
        NobodyThere,
        NoVariantFits,
        TooManyModels,
        RolloutInTheWay,
        OlderHost,
    ),
)
def create(
    operator: OperatorInBody,
    session: WriteSession,
    now: Now,
    context: Ctx,
    traced: Traced,
    body: RolloutRequest,
) -> CreatedRollout:
    """It begins as a draft; `awaiting_approval` where its policy wants a second person; `scheduled`
    where `start_at` is ahead; `running` with `start`. It keeps the policy as it is now.
    """
    check_scope(operator, Touched(body.model, [body.group]))
    wish = _wish(session, body, description=body.description, start=body.start)
    named = {"model": body.model, "version": body.version}
    with traced.span("create rollout", of=published_in(session, **named), **named) as span:
        snapshot = _snapshot(session, context)
        row = create_rollout(session, snapshot, wish, actor=str(operator), now=now)
        row.traceparent = None if span is None else str(span)
    session.flush()
    found = list(warnings(session, group_of(session, row), wish.policy, **named))
    shown = present.detail(session, row, now=now)
    return CreatedRollout(**shown.model_dump(), warnings=found)


@router.post(
    "/preview",
    operation_id="preview_rollout",
    summary="Preview a rollout",
    responses=responses(*PLAN, BadCursor),
)
def preview(
    operator: OperatorInBody, session: ReadSession, now: Now, context: Ctx, body: PreviewRequest
) -> PreviewView:
    """Who would get it in which wave, which variant each would get, and which devices have none.

    Nothing is created. Percent and count waves depend on a salt that is drawn anew each time:
    create the rollout with the answer's `salt`, and it takes the devices that were shown.
    """
    check_scope(operator, Touched(body.model, [body.group]))
    wish = _wish(session, body)
    snapshot = _snapshot(session, context)
    group = get_group(session, wish.group)
    get_version(session, model=wish.model, version=wish.version)
    refusal: ServerError | None = None
    try:
        check_wish(session, snapshot, wish, now=now)
    except CanaryGroupUnknown:
        raise
    except ServerError as error:
        refusal = error
    salt = wish.salt or draw_salt()
    thought_of = RolloutRow(
        model=wish.model, multiplier=salt.multiplier, offset=salt.offset, threshold=0
    )
    return present.preview(
        session,
        group,
        thought_of,
        wish.policy,
        snapshot.versions[wish.model, wish.version],
        page=PageRequest(body.limit, body.cursor),
        wave=body.wave,
        refusal=refusal,
    )


@router.get(
    "/{rollout}",
    operation_id="show_rollout",
    summary="One rollout",
    responses=responses(RolloutUnknown),
)
def show(rollout: RolloutName, viewer: Viewer, session: ReadSession, now: Now) -> RolloutDetail:
    """Its waves with counts and verdicts, and what was decided last."""
    return present.detail(session, get_rollout(session, rollout), now=now)


@router.get(
    "/{rollout}/preview",
    operation_id="list_rollout_waves",
    summary="List a rollout's devices by wave",
    responses=responses(RolloutUnknown, CanaryGroupUnknown, BadCursor),
)
def preview_of(
    rollout: RolloutName,
    viewer: Viewer,
    session: ReadSession,
    context: Ctx,
    page: Paging,
    wave: WaveNumber = None,
) -> PreviewView:
    """As the group is now. A wave that is not open yet may still change with the group."""
    row = get_rollout(session, rollout)
    version = _snapshot(session, context).versions[row.model, row.version]
    policy = stored_policy(row.document)
    group = group_of(session, row)
    return present.preview(session, group, row, policy, version, page=page, wave=wave)


@router.get(
    "/{rollout}/devices",
    operation_id="list_rollout_devices",
    summary="List a rollout's outcome by device",
    responses=responses(RolloutUnknown, BadCursor),
)
def list_devices(
    rollout: RolloutName,
    viewer: Viewer,
    session: ReadSession,
    page: Paging,
    outcome: Annotated[Outcome | None, Query(description="Only these.")] = None,
) -> Page[RolloutDeviceView]:
    """Devices that acted; those that did not yet are in its preview."""
    row = get_rollout(session, rollout)
    found, cursor = queries.list_devices(session, row, page=page, outcome=outcome)
    items = [present.device(name, device) for name, device in found]
    return Page(items=items, next_cursor=cursor)


@router.get(
    "/{rollout}/decisions",
    operation_id="list_rollout_decisions",
    summary="List a rollout's decisions",
    responses=responses(RolloutUnknown, BadCursor),
)
def list_decisions(
    rollout: RolloutName, viewer: Viewer, session: ReadSession, page: Paging
) -> Page[DecisionView]:
    """By operators and by the engine, the newest first, each with its numbers and a sentence."""
    row = get_rollout(session, rollout)
    rows, cursor = queries.list_decisions(session, row, page=page)
    return Page(items=[present.decision(found) for found in rows], next_cursor=cursor)
