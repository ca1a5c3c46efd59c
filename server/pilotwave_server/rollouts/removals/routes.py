"""Order models off groups and devices, over HTTP."""

from __future__ import annotations

from pydantic import Field

from pilotwave_server.deps import Ctx, Now, OperatorOfGroup, ReadSession, Viewer, WriteSession
from pilotwave_server.devices.errors import DeviceUnknown
from pilotwave_server.fields import ApiReply, DeviceName, GroupName, ModelName
from pilotwave_server.groups.service import GroupUnknown
from pilotwave_server.inventory.permissions import OperatorOfDevice
from pilotwave_server.problems import responses
from pilotwave_server.registry.publish import ModelUnknown
from pilotwave_server.rollouts.assignments.load_snapshot import RememberedSnapshot, read_snapshot
from pilotwave_server.rollouts.operate.create import RolloutInTheWay
from pilotwave_server.rollouts.removals import orders
from pilotwave_server.rollouts.removals.orders import NotRemoved, StillAssigned
from pilotwave_server.routing import api_router

groups = api_router(tag="groups", prefix="/groups/{group}/baselines/{model}/removal")
devices = api_router(tag="devices", prefix="/devices/{device}/models/{model}/removal")
routers = [groups, devices]


class RemovalView(ApiReply):
    model: str
    have_it: int = Field(description="How many of the devices run a version of the model.")
    can_remove: int = Field(
        description="How many of those remove it: the others' agents are older, or may not."
    )


@groups.get(
    "",
    summary="Whom removing a model from a group would concern",
    responses=responses(GroupUnknown, ModelUnknown),
)
def preview_group(
    group: GroupName, model: ModelName, viewer: Viewer, session: ReadSession
) -> RemovalView:
    """Nothing is changed."""
    found = orders.of_group(session, group=group, model=model)
    return RemovalView(model=model, **vars(found))


@groups.put(
    "",
    summary="Remove a model from a group's devices",
    responses=responses(GroupUnknown, ModelUnknown, RolloutInTheWay),
)
def remove_from_group(
    group: GroupName, model: ModelName, operator: OperatorOfGroup, session: WriteSession, now: Now
) -> RemovalView:
    """The group's assignment ends, and devices that nothing else tells to run the model take it
    off their disks at their next poll. It holds until the model is assigned to the group again."""
    found = orders.remove_from_group(
        session, group=group, model=model, actor=str(operator), now=now
    )
    return RemovalView(model=model, **vars(found))


@groups.delete(
    "",
    status_code=204,
    summary="Withdraw a model's removal from a group",
    responses=responses(GroupUnknown, NotRemoved),
)
def keep_in_group(
    group: GroupName, model: ModelName, operator: OperatorOfGroup, session: WriteSession, now: Now
) -> None:
    """Models that devices have already removed do not come back."""
    orders.keep_in_group(session, group=group, model=model, actor=str(operator), now=now)


@devices.get(
    "",
    summary="Whether a device has a model and can remove it",
    responses=responses(DeviceUnknown, ModelUnknown),
)
def preview_device(
    device: DeviceName, model: ModelName, viewer: Viewer, session: ReadSession
) -> RemovalView:
    """Nothing is changed."""
    found = orders.of_device(session, device=device, model=model)
    return RemovalView(model=model, **vars(found))


@devices.put(
    "",
    summary="Remove a model from a device",
    responses=responses(DeviceUnknown, ModelUnknown, StillAssigned),
)
def remove_from_device(
    device: DeviceName,
    model: ModelName,
    operator: OperatorOfDevice,
    session: WriteSession,
    now: Now,
    context: Ctx,
) -> RemovalView:
    """It takes the model off its disk at its next poll. It holds until the model is pinned or
    assigned there again."""
    snapshot = read_snapshot(session, context.get(RememberedSnapshot))
    found = orders.remove_from_device(
        session, snapshot, device=device, model=model, actor=str(operator), now=now
    )
    return RemovalView(model=model, **vars(found))


@devices.delete(
    "",
    status_code=204,
    summary="Withdraw a model's removal from a device",
    responses=responses(DeviceUnknown, NotRemoved),
)
def keep_on_device(
    device: DeviceName,
    model: ModelName,
    operator: OperatorOfDevice,
    session: WriteSession,
    now: Now,
) -> None:
    """A model that the device has already removed does not come back."""
    orders.keep_on_device(session, device=device, model=model, actor=str(operator), now=now)
