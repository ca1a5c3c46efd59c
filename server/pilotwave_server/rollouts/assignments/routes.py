"""What groups and single devices are to run, over HTTP."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from pilotwave_server.deps import Ctx, Now, OperatorOfGroup, ReadSession, Viewer, WriteSession
from pilotwave_server.devices.errors import DeviceUnknown
from pilotwave_server.devices.service import list_history as list_device_history
from pilotwave_server.devices.silence import silence
from pilotwave_server.devices.tables import PinRow
from pilotwave_server.devices.views import HistoryView
from pilotwave_server.fields import DeviceName, GroupName, ModelName
from pilotwave_server.groups.service import GroupUnknown, get_group
from pilotwave_server.inventory.permissions import OperatorOfDevice
from pilotwave_server.paging import BadCursor, Page, Paging
from pilotwave_server.problems import responses
from pilotwave_server.registry.publish import ModelUnknown
from pilotwave_server.registry.service import VersionUnknown, check_model_known, get_model
from pilotwave_server.rollouts.assignments import baselines, pins
from pilotwave_server.rollouts.assignments.baselines import NoBaseline
from pilotwave_server.rollouts.assignments.capacity import TooManyModels
from pilotwave_server.rollouts.assignments.explain import why
from pilotwave_server.rollouts.assignments.fitting import count_fitting, count_in_trouble
from pilotwave_server.rollouts.assignments.history import taken_back_by
from pilotwave_server.rollouts.assignments.load_device import device_says, look, read_turns, unheard
from pilotwave_server.rollouts.assignments.load_snapshot import RememberedSnapshot, read_snapshot
from pilotwave_server.rollouts.assignments.offerable import VersionNotOffered
from pilotwave_server.rollouts.assignments.pins import NothingToRollBackTo, NotPinned
from pilotwave_server.rollouts.assignments.resolve import choose_variant
from pilotwave_server.rollouts.assignments.snapshot import FleetSnapshot
from pilotwave_server.rollouts.assignments.views import (
    BaselineAnswer,
    BaselineRequest,
    Baselines,
    BaselineView,
    CandidateView,
    PinAnswer,
    PinRequest,
    RetryAnswer,
    RollBackRequest,
    WhyView,
)
from pilotwave_server.rollouts.tables import BaselineRow
from pilotwave_server.routing import api_router

groups = api_router(tag="groups", prefix="/groups/{group}/baselines")
devices = api_router(tag="devices", prefix="/devices/{device}")
routers = [groups, devices]


def _snapshot(session: ReadSession, context: Ctx) -> FleetSnapshot:
    return read_snapshot(session, context.get(RememberedSnapshot))


def _baseline(group: str, row: BaselineRow) -> BaselineView:
    return BaselineView(
        group=group,
        model=row.model,
        version=row.version,
        set_by=row.set_by,
        at=row.set_at,
        together=row.together or [],
    )


@groups.get("", summary="List the versions assigned to a group", responses=responses(GroupUnknown))
def list_baselines(group: GroupName, viewer: Viewer, session: ReadSession) -> Baselines:
    """One version for each model."""
    rows = baselines.list_baselines(session, group=group)
    return Baselines(items=[_baseline(group, row) for row in rows])


@groups.put(
    "/{model}",
    summary="Assign a version to a group at once",
    responses=responses(
        GroupUnknown, ModelUnknown, VersionUnknown, VersionNotOffered, TooManyModels
    ),
)
def set_baseline(
    group: GroupName,
    model: ModelName,
    operator: OperatorOfGroup,
    session: WriteSession,
    now: Now,
    context: Ctx,
    body: BaselineRequest,
) -> BaselineAnswer:
    """All its devices are told at their next poll. The answer counts those that cannot take it."""
    snapshot = _snapshot(session, context)
    baselines.check_tied(session, body.together)
    row = baselines.set_baseline(
        session,
        snapshot,
        group=group,
        model=model,
        version=body.version,
        actor=str(operator),
        now=now,
        together=body.together,
    )
    version = snapshot.versions[model, body.version]
    members = get_group(session, group)
    fitting = count_fitting(session, members, version)
    trouble = count_in_trouble(session, members, version)
    told = _baseline(group, row).model_dump()
    return BaselineAnswer(**told, **vars(fitting), **vars(trouble))


@groups.delete(
    "/{model}",
    status_code=204,
    summary="Unassign a model from a group",
    responses=responses(GroupUnknown, NoBaseline),
)
def end_baseline(
    group: GroupName, model: ModelName, operator: OperatorOfGroup, session: WriteSession, now: Now
) -> None:
    """Its devices keep what they run, unless another of their groups assigns a version."""
    baselines.end_baseline(session, group=group, model=model, actor=str(operator), now=now)


@devices.get(
    "/why",
    operation_id="explain_device",
    summary="Explain what a device should run",
    responses=responses(DeviceUnknown, ModelUnknown),
)
def explain(
    device: DeviceName,
    viewer: Viewer,
    session: ReadSession,
    context: Ctx,
    model: Annotated[ModelName, Query(description="The model.")],
) -> WhyView:
    """All that asks for a version, strongest first, down to the one that can be taken."""
    snapshot = _snapshot(session, context)
    row, view = look(session, snapshot, device)
    get_model(session, model=model)
    says = device_says(session, row.id, model)
    turns = read_turns(session, row.id, model)
    found = why(view, snapshot, model=model, state=row.state, says=says, turns=turns)
    silent = unheard(session, row.id, silence(context.settings, context.clock()))
    candidates = [
        CandidateView(
            reason=step.candidate.reason,
            version=step.candidate.version,
            group=step.candidate.group,
            rollout=None if step.candidate.rollout is None else step.candidate.rollout.id,
            chosen=step.hold is None,
            variant=step.variant,
            hold=None if step.hold is None else str(step.hold.reason),
            sentence=sentence,
        )
        for step, sentence in found.candidates
    ]
    return WhyView(
        device=device,
        model=model,
        sentence=". ".join(filter(None, (found.sentence, silent))),
        version=found.version,
        variant=found.variant,
        candidates=candidates,
    )


@devices.get(
    "/history",
    operation_id="list_device_history",
    summary="List the versions that a device ran",
    responses=responses(DeviceUnknown, ModelUnknown, BadCursor),
)
def list_history(
    device: DeviceName,
    viewer: Viewer,
    session: ReadSession,
    page: Paging,
    model: Annotated[ModelName | None, Query(description="Only this model's.")] = None,
) -> Page[HistoryView]:
    """Newest first. Where a rollout took a version back, it is named."""
    if model is not None:
        check_model_known(session, model)
    rows, cursor = list_device_history(session, name=device, page=page, model=model)
    by = taken_back_by(session, rows[0].device_id, rows) if rows else {}
    return Page(
        items=[
            HistoryView.model_validate(row).model_copy(
                update=by[row.id]._asdict() if row.id in by else {}
            )
            for row in rows
        ],
        next_cursor=cursor,
    )


@devices.post(
    "/models/{model}/pin",
    operation_id="pin_device",
    summary="Pin a device to a version",
    responses=responses(
        DeviceUnknown, ModelUnknown, VersionUnknown, VersionNotOffered, TooManyModels
    ),
)
def pin(
    device: DeviceName,
    model: ModelName,
    operator: OperatorOfDevice,
    session: WriteSession,
    now: Now,
    context: Ctx,
    body: PinRequest,
) -> PinAnswer:
    """It overrides the device's groups and replaces any earlier pin."""
    snapshot = _snapshot(session, context)
    row = pins.pin(
        session,
        snapshot,
        name=device,
        model=model,
        version=body.version,
        reason=body.reason,
        actor=str(operator),
        now=now,
    )
    return _pinned(session, snapshot, device, row)


@devices.post(
    "/models/{model}/rollback",
    operation_id="roll_back_device",
    summary="Roll a device back and pin it",
    responses=responses(
        DeviceUnknown,
        ModelUnknown,
        VersionUnknown,
        VersionNotOffered,
        TooManyModels,
        NothingToRollBackTo,
    ),
)
def roll_back(
    device: DeviceName,
    model: ModelName,
    operator: OperatorOfDevice,
    session: WriteSession,
    now: Now,
    context: Ctx,
    body: RollBackRequest,
) -> PinAnswer:
    """By default to the last version, older than the present one, that was healthy there."""
    snapshot = _snapshot(session, context)
    row = pins.roll_back(
        session,
        snapshot,
        name=device,
        model=model,
        to=body.to,
        reason=body.reason,
        actor=str(operator),
        now=now,
    )
    return _pinned(session, snapshot, device, row)


@devices.delete(
    "/models/{model}/pin",
    operation_id="unpin_device",
    status_code=204,
    summary="Unpin a device",
    responses=responses(DeviceUnknown, NotPinned),
)
def unpin(
    device: DeviceName,
    model: ModelName,
    operator: OperatorOfDevice,
    session: WriteSession,
    now: Now,
) -> None:
    pins.unpin(session, name=device, model=model, actor=str(operator), now=now)


@devices.post(
    "/models/{model}/retry",
    operation_id="retry_device",
    summary="Retry a failed version on a device",
    responses=responses(DeviceUnknown, ModelUnknown),
)
def retry(
    device: DeviceName,
    model: ModelName,
    operator: OperatorOfDevice,
    session: WriteSession,
    now: Now,
) -> RetryAnswer:
    """The device tries again at its next poll."""
    attempt = pins.retry(session, name=device, model=model, actor=str(operator), now=now)
    return RetryAnswer(device=device, model=model, attempt=attempt)


def _pinned(session: WriteSession, snapshot: FleetSnapshot, device: str, row: PinRow) -> PinAnswer:
    version = snapshot.versions[row.model, row.version]
    _, hold = choose_variant(look(session, snapshot, device).view, version)
    return PinAnswer(
        device=device,
        model=row.model,
        version=row.version,
        reason=row.reason,
        set_by=row.set_by,
        set_at=row.set_at,
        warning=None if hold is None else hold.sentence,
    )
