"""Rollouts as the API shows and takes them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from pilotwave_server.fields import (
    ApiReply,
    ApiRequest,
    GroupName,
    ModelName,
    Moment,
    ReasonText,
    VersionName,
)
from pilotwave_server.rollouts.policies.views import PolicyText
from pilotwave_server.rollouts.states import RolloutState

RolloutName = Annotated[
    str,
    Field(
        pattern=r"^r[1-9][0-9]{0,17}$",
        description="The rollout, like `r17`.",
        examples=["r17"],
    ),
]
Salt = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,9}\.(?:0|[1-9][0-9]{0,9})$")]
Outcome = Literal[
    "leased",
    "switched",
    "healthy",
    "failed",
    "rolled_back",
    "silent",
    "expired",
    "returned",
    "shadow_leased",
    "shadowing",
]
OUTCOMES = (
    "`leased` may take the version now, `switched` is in probation, `healthy`, `failed` before or "
    "`rolled_back` after the switch, `silent` since the switch, `expired`: had its turn and did "
    "not use it, `returned`: taken back with the rollout, and well on the version before, "
    "`shadow_leased` may try the version in shadow, `shadowing` does so"
)


class PlanRequest(ApiRequest):
    group: GroupName
    model: ModelName
    version: VersionName
    policy: str | None = Field(
        None,
        max_length=64,
        description="A policy's name. Give this, `policy_text` or `document`.",
        examples=["standard"],
    )
    policy_version: int | None = Field(
        None, ge=1, le=2**31 - 1, description="An older version of the policy; null: the newest."
    )
    document: dict[str, Any] | None = Field(
        None, description="A policy for this rollout alone, as `PUT /policies/{policy}` takes it."
    )
    policy_text: PolicyText = None
    start_at: Moment | None = Field(None, description="Start by itself then.")
    end_at: Moment | None = Field(None, description="Until when it has to be complete.")
    salt: Salt | None = Field(
        None,
        description="Of a preview: the rollout then takes its devices in the same order.",
        examples=["12345.678"],
    )
    allow_empty: bool = Field(False, description="Allow an empty group or canary wave.")


class RolloutRequest(PlanRequest):
    description: str = Field("", max_length=512, description="What it is for.")
    start: bool = Field(
        False, description="Start at once, unless it waits for approval or for `start_at`."
    )


class PreviewRequest(PlanRequest):
    limit: int = Field(50, ge=1, le=500, description="At most so many devices by name.")
    cursor: str | None = Field(
        None, max_length=1024, description="`next_cursor` of the page before."
    )
    wave: int | None = Field(None, ge=0, le=99, description="Only devices that this wave takes.")


class RollBackStep(ApiRequest):
    reason: Annotated[ReasonText, Field(pattern=r"\S")]


class StepRequest(ApiRequest):
    reason: str = Field(
        "",
        max_length=500,
        pattern=r"^[^\x00-\x09\x0b-\x1f]*$",
        description="Why, in words, for the rollout's history and the audit log.",
    )


class RolloutSummary(ApiReply):
    id: str = Field(description="Its name: `r17`.")
    group: str
    model: str
    version: str
    policy: str
    policy_version: int = Field(description="0: handed in with the rollout.")
    state: RolloutState
    wave: int = Field(description="The open wave, from 0; -1: none is open yet.")
    wave_count: int = Field(description="How many waves the policy has.")
    open_wave: str | None = Field(description="The open wave's name.")
    description: str
    reason: str | None = Field(description="Why it is in this state, in a sentence.")
    created_by: str
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


class WaveView(ApiReply):
    index: int
    name: str
    takes: str = Field(description="Whom it takes, in words.")
    state: Literal["not open", "open", "closed"]
    opened_at: datetime | None
    soaking_since: datetime | None = Field(
        description="Since when its outcomes suffice and must stay good."
    )
    closed_at: datetime | None
    reached: int = Field(description="How many devices acted: the sum of `outcomes`.")
    in_flight: int = Field(description="Devices that may take it now or are in probation.")
    healthy: int
    in_shadow: int = Field(description="Devices that try it beside the version that serves.")
    failed: int = Field(description="Failed, rolled back or silent.")
    outcomes: dict[str, int] = Field(description=f"Devices by outcome: {OUTCOMES}.")
    verdict: dict[str, Any] | None = Field(
        description="What its gates said last, with numbers and a sentence."
    )


class DecisionView(ApiReply):
    at: datetime
    actor: str = Field(description="`token/<name>`, or `server` for the engine.")
    action: str
    wave: int
    verdict: str | None = Field(description="PASS, WAIT, FAIL or INCONCLUSIVE.")
    numbers: dict[str, Any]
    sentence: str


class RolloutDetail(RolloutSummary):
    approved_by: str | None
    approved_at: datetime | None
    paused_by: str | None
    start_at: datetime | None
    end_at: datetime | None
    attempt: int = Field(description="How often its failed devices were asked to try again.")
    reached_percent: float = Field(description="How far percent and count waves are open.")
    failure: dict[str, Any] | None = Field(description="The verdict that ended it.")
    document: dict[str, Any] = Field(description="The policy as it was when it was created.")
    waves: list[WaveView]
    pace: list[str] = Field(description="How far each limit of the pace is used, in words.")
    decisions: list[DecisionView] = Field(description="The last ten, the newest first.")


class CreatedRollout(RolloutDetail):
    warnings: list[str] = Field(
        description="What will keep it from its end, and where the version was rolled back before."
    )


class RolloutDeviceView(ApiReply):
    device: str
    wave: int
    outcome: Outcome = Field(description=f"{OUTCOMES}.")
    leased_at: datetime | None
    switched_at: datetime | None
    changed_at: datetime
    reason: str | None
    detail: str | None
    slices: dict[str, Any] = Field(description="The labels and facts that gates look at.")
    came_from: str | None = Field(description="The version that it ran before.")
    left_at: datetime | None = Field(
        description="When it was heard to run another version again; null: it runs this one."
    )


class RetriedRollout(RolloutDetail):
    devices: int = Field(description="How many devices try again.")


class PlannedWaveView(ApiReply):
    index: int
    name: str
    takes: str = Field(description="Whom it takes, in words.")
    devices: int = Field(
        description="Enrolled devices that this wave is the first to take, among those that switch "
        "devices or among the shadow waves."
    )
    in_shadow: bool = Field(
        description="Whether its devices only try the version in shadow: none is switched."
    )
    able: int | None = Field(
        description="Of a shadow wave's devices, those that can take part now: their agents know "
        "how, and they are well on another version; null: it is no shadow wave."
    )


class PlannedDeviceView(ApiReply):
    device: str
    wave: int | None = Field(description="The wave that takes it; null: none does.")
    variant: str | None = Field(
        description="What it would get, as far as its class has measured; null: nothing fits it."
    )
    hold: str | None = Field(description="Why no variant fits, as a stable word.")
    sentence: str | None = Field(description="Why no variant fits.")
    pinned: str | None = Field(
        description="The version that an operator pinned it to, and that it keeps; null: none."
    )


class PreviewView(ApiReply):
    salt: str = Field(description="Create the rollout with it, to have these waves come true.")
    devices: int = Field(description="The group's enrolled devices that are not pinned.")
    pinned: int = Field(description="Enrolled devices that are pinned, and so are not affected.")
    outside: int = Field(description="Devices that no wave takes.")
    waves: list[PlannedWaveView]
    fits: int = Field(description="Devices that a variant fits.")
    variants: dict[str, int] = Field(
        description="How many devices would get which variant; in a group of more than 10,000, "
        "by the publisher's order."
    )
    holds: dict[str, int] = Field(description="The others, counted by why no variant fits.")
    warnings: list[str] = Field(
        description="What would keep it from its end, and where the version was rolled back before."
    )
    refusal: str | None = Field(
        description="Why it could not be created now, as the code of a problem; null: it could."
    )
    refusal_sentence: str | None
    items: list[PlannedDeviceView] = Field(description="Devices by name.")
    next_cursor: str | None = Field(
        None, description="Pass as `cursor` for the next page; null: this is the last."
    )
