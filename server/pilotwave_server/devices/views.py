"""Devices and enrolment codes as the API shows and takes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import Field

from pilotwave_protocol import dsse
from pilotwave_server.devices.refusals import action
from pilotwave_server.devices.report_tables import DeviceModelRow
from pilotwave_server.devices.silence import Silence
from pilotwave_server.devices.tables import DeviceRow, PinRow
from pilotwave_server.fields import ApiReply, ApiRequest, DeviceName, LabelKey, LabelValue

MAX_LABELS = 64
MAX_CODES = 1000
YEAR_S = 366 * 86_400

Labels = Annotated[
    dict[LabelKey, LabelValue],
    Field(max_length=MAX_LABELS, description="What operators say of the device."),
]
DeviceSort = Literal[
    "name", "-name", "state", "-state", "agent", "-agent", "last_seen", "-last_seen"
]
DeviceState = Literal["pending", "enrolled", "revoked", "decommissioned"]
StandingWord = Literal[
    "pending", "revoked", "decommissioned", "conflict", "refusing", "silent", "never", "online"
]


class LabelsRequest(ApiRequest):
    labels: Labels = Field(description="All labels that the device is to have from now on.")


class ModelOnDevice(ApiReply):
    model: str
    state: str = Field(description="Where the model stands on the device, as it last reported.")
    current_version: str | None = Field(description="What it serves.")
    current_sha256: str | None = Field(description="The digest of that version's manifest.")
    current_variant: str | None
    previous_version: str | None = Field(description="What it can go back to from its own disk.")
    candidate_version: str | None = Field(description="What it is fetching or testing.")
    progress: int | None = Field(description="Percent of the candidate's bytes on its disk.")
    reason: str | None = Field(description="Why it is held or failed, as a stable word.")
    detail: str | None = Field(description="The same in a sentence.")
    since: datetime = Field(description="Since when it is in this state.")


class RefusalView(ApiReply):
    reason: str = Field(description="Why the device refused its last directive, as a stable word.")
    detail: str = Field(description="The same in the device's own words.")
    action: str = Field(description="What a person must do about it.")


class DeviceSummary(ApiReply):
    name: str
    state: DeviceState
    labels: dict[str, str] = Field(description="What operators say of it.")
    agent: str = Field(description="The version of its agent.")
    created_at: datetime
    enrolled_at: datetime | None
    last_seen: datetime | None = Field(description="Its last poll or check-in, to the minute.")
    last_check_in: datetime | None
    conflict_since: datetime | None = Field(
        description="Since when two machines use this device's key; nothing is offered meanwhile."
    )
    silent_since: datetime | None = Field(
        description="Since when it is reported silent (`device.silent`), up to a minute after it "
        "became so; null: it is not."
    )
    refusal: RefusalView | None = Field(
        description="Why it refuses its orders, as it last reported; null: it takes them."
    )
    standing: StandingWord = Field(
        description="How it stands: its state, or of an enrolled device whether its key is in "
        "`conflict`, it is `refusing` its orders, was `never` heard, is `silent` (it has missed "
        "three check-ins) or `online`."
    )
    models: list[ModelOnDevice]


class DeviceCount(ApiReply):
    devices: int
    digest: str | None = Field(
        description="SHA-256 over the devices' sorted names, each with a line feed behind it; null "
        "for more than 10,000, which no act takes at once."
    )
    sketch: str | None = Field(
        description="Send it back beside the digest: a 409 then names who joined and who left."
    )


class PinView(ApiReply):
    model: str
    version: str
    reason: str
    set_by: str
    set_at: datetime


class TufOnDevice(ApiReply):
    root: int
    timestamp: int
    snapshot: int


class DeviceDetail(DeviceSummary):
    facts: dict[str, str | int | float | bool] = Field(description="What it says of itself.")
    keyid: str = Field(description="SHA-256 of its public key, to compare with what it shows.")
    groups: list[str] = Field(description="The groups that it is in.")
    pins: list[PinView]
    directive_seq: int = Field(description="The seq of the last directive that it took.")
    tuf: TufOnDevice = Field(description="The metadata versions that it has.")
    dropped_events: int = Field(description="Events that it had to drop for want of room.")
    push: str | None = Field(
        description="The push channel that lives, `websocket` or `mqtt`; null for none, `unknown` "
        "where another server process may hold one."
    )


class DeviceEventView(ApiReply):
    number: int = Field(description="The device's own count.")
    at: datetime = Field(description="By the device's clock.")
    received_at: datetime = Field(description="By the server's clock.")
    kind: str
    model: str | None
    version: str | None
    reason: str | None
    detail: str | None


class HistoryView(ApiReply):
    at: datetime
    model: str
    version: str
    became: str = Field(
        description="`switched`, `healthy`, `failed`, `rolled_back`, or `drifted`: its inputs are "
        "no longer like its reference's."
    )
    reason: str | None = Field(
        description="Why, as the device's own stable word; of drift, by which metric."
    )
    detail: str | None = Field(description="Of drift: the same in a sentence.")
    rollout: str | None = Field(None, description="The rollout that took it back, as `r17`.")
    sentence: str | None = Field(
        None, description="Who took it back and why, where a rollout did; else null."
    )


class CodesRequest(ApiRequest):
    count: int = Field(1, ge=1, le=MAX_CODES, description="How many codes to make.")
    labels: Labels = Field(default_factory=dict, description="Labels for the device that uses it.")
    device: DeviceName | None = Field(
        None, description="The only name under which it may be used; null: any name."
    )
    expires_in_s: int = Field(86_400, ge=60, le=YEAR_S, description="For how long it is good.")


class CodeView(ApiReply):
    id: int
    labels: dict[str, str]
    device: str | None
    created_by: str
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None
    used_by: str | None
    revoked_at: datetime | None


class NewCodeView(CodeView):
    code: str = Field(description="The code itself. It is shown this once and kept nowhere.")


class NewCodes(ApiReply):
    items: list[NewCodeView]


def summary(
    row: DeviceRow, models: Iterable[DeviceModelRow], polled: datetime | None, silence: Silence
) -> DeviceSummary:
    """A device in a list. `polled` is its last poll as far as this process remembers."""
    return DeviceSummary(**_common(row, models, polled, silence))


def standing(row: DeviceRow, last_seen: datetime | None, silence: Silence) -> StandingWord:
    """The word for how a device stands."""
    if row.state != "enrolled":
        return cast(StandingWord, row.state)
    if row.conflict_since is not None:
        return "conflict"
    if row.refusal is not None:
        return "refusing"
    if last_seen is None:
        return "never"
    return "silent" if silence.is_silent(row) else "online"


def detail(
    row: DeviceRow,
    models: Iterable[DeviceModelRow],
    polled: datetime | None,
    silence: Silence,
    *,
    groups: list[str],
    pins: Iterable[PinRow],
    push: str | None,
) -> DeviceDetail:
    """All about one device."""
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(row.public_key))
    return DeviceDetail(
        **_common(row, models, polled, silence),
        facts=row.facts,
        keyid=dsse.keyid(key),
        groups=groups,
        pins=[PinView.model_validate(pin) for pin in pins],
        directive_seq=row.directive_seq,
        tuf=TufOnDevice(root=row.tuf_root, timestamp=row.tuf_timestamp, snapshot=row.tuf_snapshot),
        dropped_events=row.dropped_events,
        push=push,
    )


def refusal_of(row: DeviceRow, said: Mapping[str, Any]) -> RefusalView:
    """What a device says against its orders, with what to do."""
    reason, detail = str(said.get("reason", "")), str(said.get("detail") or "")
    what = action(row.name, reason, detail, heard=row.last_check_in)
    return RefusalView(reason=reason, detail=detail, action=what)


def _common(
    row: DeviceRow, models: Iterable[DeviceModelRow], polled: datetime | None, silence: Silence
) -> dict[str, Any]:
    last_seen = max((t for t in (row.last_seen, polled) if t is not None), default=None)
    return {
        "name": row.name,
        "state": row.state,
        "labels": row.labels,
        "agent": row.agent,
        "created_at": row.created_at,
        "enrolled_at": row.enrolled_at,
        "last_seen": last_seen,
        "last_check_in": row.last_check_in,
        "conflict_since": row.conflict_since,
        "silent_since": row.silent_since,
        "refusal": None if row.refusal is None else refusal_of(row, row.refusal),
        "standing": standing(row, last_seen, silence),
        "models": [ModelOnDevice.model_validate(m) for m in models],
    }
