"""What devices reported, summed up: versions in the fleet over time, a device's live metrics."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import Query
from pydantic import Field

from pilotwave_server.deps import Ctx, Now, ReadSession, Viewer
from pilotwave_server.devices.errors import DeviceUnknown
from pilotwave_server.devices.service import get_device
from pilotwave_server.fields import ApiReply, DeviceName, ModelName
from pilotwave_server.problems import responses
from pilotwave_server.routing import api_router
from pilotwave_server.telemetry import course
from pilotwave_server.telemetry.distribution import Distribution, Period
from pilotwave_server.telemetry.distribution import distribution as find_distribution

router = api_router(tag="telemetry")


class DistributionView(ApiReply):
    model: str
    times: list[datetime] = Field(description="When it was counted, oldest first.")
    devices: dict[str, list[int]] = Field(
        description="By version, how many devices ran it at each of the times."
    )


class PointView(ApiReply):
    at: datetime = Field(description="When its last window ended, by the device's clock.")
    count: int = Field(description="How many observations it is of.")
    mean: float
    p95: float = Field(description="The highest 95th percentile of its windows.")


class CourseView(ApiReply):
    model: str
    version: str
    metric: str = Field(description="`latency_ms`, `error`, `score` or one of the application's.")
    count: int = Field(description="Observations of this version so far.")
    mean: float = Field(description="Their mean; of `error`, the share of calls that failed.")
    p50: float
    p95: float
    points: list[PointView] = Field(
        description="How it went: the last windows one by one, older ones merged. Oldest first."
    )


class MetricsView(ApiReply):
    metrics: list[CourseView] = Field(
        description="Of each metric the version in use and the one before it."
    )


@router.get("/models/{model}/distribution", summary="Count devices by version over time")
def distribution(
    model: ModelName,
    viewer: Viewer,
    session: ReadSession,
    context: Ctx,
    now: Now,
    period: Annotated[
        Period,
        Query(description="The last 600 counts; one an hour for 60 days; one a day for 3 years."),
    ] = "recent",
) -> DistributionView:
    """Counted once every `distribution_interval_s`. Empty for a model that ran nowhere."""
    interval_s = context.settings.distribution_interval_s
    by_model = find_distribution(
        session, models=[model], period=period, now=now, interval_s=interval_s
    )
    found = by_model.get(model) or Distribution([], {})
    return DistributionView(model=model, times=found.times, devices=found.devices)


@router.get(
    "/devices/{device}/metrics",
    summary="A device's live metrics",
    responses=responses(DeviceUnknown),
)
def device_metrics(device: DeviceName, viewer: Viewer, session: ReadSession) -> MetricsView:
    """Latency, errors, score and what else its applications measure, by version."""
    row = get_device(session, device)
    found = course.courses_of(session, row.id)
    return MetricsView(metrics=[CourseView.model_validate(item) for item in found])
