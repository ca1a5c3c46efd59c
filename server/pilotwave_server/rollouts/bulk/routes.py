"""Act on many devices by one request."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from pilotwave_server.context import Context
from pilotwave_server.deps import Ctx, OperatorInBody
from pilotwave_server.devices.service import Standing
from pilotwave_server.devices.shown import MOST, SKETCH_CHARS, Shown
from pilotwave_server.devices.views import MAX_LABELS, DeviceState
from pilotwave_server.fields import (
    ApiReply,
    ApiRequest,
    DeviceName,
    GroupName,
    LabelKey,
    LabelValue,
    ModelName,
    ReasonText,
    Sha256,
    VersionName,
)
from pilotwave_server.groups.service import GroupUnknown
from pilotwave_server.inventory.finding import DeviceFilter
from pilotwave_server.problems import responses
from pilotwave_server.registry.publish import ModelUnknown
from pilotwave_server.rollouts.bulk import acts as bulk_acts
from pilotwave_server.rollouts.bulk.acts import DevicesChanged, TooManyDevices
from pilotwave_server.rollouts.bulk.steps import BulkAction, DeviceAction
from pilotwave_server.routing import api_router
from pilotwave_server.selector import BadSelector

router = api_router(tag="devices")
NEEDS: dict[BulkAction, tuple[str, ...]] = {
    "label": ("labels",),
    "accept": (),
    "retry": ("model",),
    "rollback": ("model", "reason"),
    "decommission": (),
}


class BulkFilter(ApiRequest):
    """The same as the list of devices takes."""

    selector: str | None = Field(None, max_length=4096)
    state: DeviceState | None = None
    standing: Standing | None = None
    model: ModelName | None = None
    version: VersionName | None = None
    group: GroupName | None = None
    name: str | None = Field(None, max_length=64)
    reason: str | None = Field(None, max_length=64)


class BulkRequest(ApiRequest):
    action: BulkAction
    devices: Annotated[list[DeviceName], Field(min_length=1, max_length=MOST)] | None = Field(
        None, description="These devices. Give this, or `filter`."
    )
    filter: BulkFilter | None = Field(None, description="All devices that this takes.")
    digest: Sha256 | None = Field(
        None,
        description="With `filter`: that of the devices which were shown, as `GET /device-count` "
        "gives it: SHA-256 over their sorted names, each with a line feed behind it. Nothing is "
        "done where others match (409).",
    )
    expected: int | None = Field(None, ge=0, description="How many were shown, for the sentence.")
    sketch: str | None = Field(
        None,
        max_length=SKETCH_CHARS,
        description="As `GET /device-count` gives it: a 409 then names who joined and who left.",
    )
    model: ModelName | None = Field(None, description="For `retry` and `rollback`.")
    to: VersionName | None = Field(
        None, description="For `rollback`; null: the last version that was healthy there."
    )
    reason: ReasonText | None = Field(None, description="For `rollback`, and for the log.")
    labels: Annotated[dict[LabelKey, LabelValue | None], Field(max_length=MAX_LABELS)] | None = (
        Field(None, description="For `label`: null removes one; those not named stay.")
    )

    @model_validator(mode="after")
    def _is_whole(self) -> BulkRequest:
        if (self.devices is None) == (self.filter is None):
            raise ValueError("expected either `devices` or `filter`")
        if self.filter is not None and self.digest is None:
            raise ValueError("expected with `filter` the `digest` that GET /device-count gives")
        for name in NEEDS[self.action]:
            if not getattr(self, name):
                raise ValueError(f"expected `{name}` with the action {self.action}")
        return self


class BulkOutcome(ApiReply):
    device: str
    done: bool
    code: str | None = Field(description="Why it was not done, as the code of a problem.")
    sentence: str | None


class BulkAnswer(ApiReply):
    matched: int = Field(description="Devices that were named, or that the filter took.")
    done: int = Field(description="Devices to which it was done.")
    items: list[BulkOutcome] = Field(description="What came of it on each device.")


def devices_of(context: Context, body: BulkRequest) -> list[str]:
    """The devices that are named, or those that the filter takes if they are the ones shown."""
    if body.filter is None:
        return sorted(set(body.devices or ()))
    with context.db.read() as session:
        names = bulk_acts.find(session, DeviceFilter(**body.filter.model_dump()), context)
    bulk_acts.check_same(names, Shown(body.expected, body.digest, body.sketch))
    return names


@router.post(
    "/devices/bulk",
    operation_id="act_on_devices",
    summary="Act on many devices at once",
    responses=responses(DevicesChanged, TooManyDevices, BadSelector, GroupUnknown, ModelUnknown),
)
def act_on_devices(operator: OperatorInBody, context: Ctx, body: BulkRequest) -> BulkAnswer:
    """Each device is treated by the same rules as alone, and has an event of its own in the audit
    log. What cannot be done to one device is said in its item; the others go on."""
    names = devices_of(context, body)
    wanted = DeviceAction(body.action, body.model or "", body.to, body.reason or "", body.labels)
    found = bulk_acts.act(context, operator, names, wanted)
    items = [BulkOutcome.model_validate(vars(one)) for one in found]
    return BulkAnswer(matched=len(names), done=sum(one.done for one in found), items=items)
