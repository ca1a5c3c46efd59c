"""Baselines, pins and their reasons as the API shows and takes them."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from pilotwave_server.fields import ApiReply, ApiRequest, ModelName, ReasonText, VersionName


class BaselineRequest(ApiRequest):
    version: VersionName
    together: list[ModelName] = Field(
        default_factory=list,
        max_length=16,
        description="Models of the same devices that change in one with this one.",
    )


class BaselineView(ApiReply):
    group: str
    model: str
    version: str
    set_by: str
    at: datetime = Field(description="Since when.")
    together: list[str] = Field(description="Models that change in one with it.")


class BaselineAnswer(BaselineView):
    devices: int = Field(description="How many enrolled devices are in the group now.")
    fits: int = Field(description="How many of them have a variant that fits.")
    holds: dict[str, int] = Field(description="The others, counted by why no variant fits.")
    variants: dict[str, int] = Field(description="How many devices would get which variant.")
    refusing: int = Field(description="How many of them refuse their orders.")
    failed_before: int = Field(description="On how many of them this version failed before.")


class Baselines(ApiReply):
    items: list[BaselineView]


class PinRequest(ApiRequest):
    version: VersionName
    reason: ReasonText


class RollBackRequest(ApiRequest):
    to: VersionName | None = Field(
        None, description="The version; null: the last one older than the present that was good."
    )
    reason: ReasonText


class PinAnswer(ApiReply):
    device: str
    model: str
    version: str
    reason: str
    set_by: str
    set_at: datetime
    warning: str | None = Field(description="Why the device cannot take it yet; null: it can.")


class RetryAnswer(ApiReply):
    device: str
    model: str
    attempt: int = Field(description="How often a retry was asked for.")


class CandidateView(ApiReply):
    reason: str = Field(description="`pin`, `rollout` or `baseline`.")
    version: str
    group: str | None
    rollout: str | None
    chosen: bool
    variant: str | None
    hold: str | None = Field(description="Why it was passed over, as a stable word.")
    sentence: str


class WhyView(ApiReply):
    device: str
    model: str
    sentence: str
    version: str | None = Field(description="What it should run; null: it keeps what it has.")
    variant: str | None
    candidates: list[CandidateView] = Field(description="All that asked, the strongest first.")
