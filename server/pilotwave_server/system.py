"""The server about itself: what does it count, how does the fleet stand."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fastapi import Request, Response
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from pydantic import Field
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from pilotwave_server import build
from pilotwave_server.audit.notices import list_notices
from pilotwave_server.context import Context
from pilotwave_server.db import fleet_row
from pilotwave_server.deps import Credentials, Ctx, Now, ReadSession, Viewer, get_actor
from pilotwave_server.devices import conflicts
from pilotwave_server.devices import service as devices
from pilotwave_server.devices.silence import silence
from pilotwave_server.fields import ApiReply
from pilotwave_server.inventory.finding import DeviceFilter, matching
from pilotwave_server.metrics import CONTENT_TYPE, gauge
from pilotwave_server.operators.authenticate import TokenMissing
from pilotwave_server.problems import responses
from pilotwave_server.recovery.ahead import look, roles_that_went_back
from pilotwave_server.recovery.sentences import AheadView, RoleBehind, roles_behind, view
from pilotwave_server.registry import service as registry
from pilotwave_server.registry.tables import ModelRow
from pilotwave_server.rollouts.operate.queries import count_decisions, count_rollouts
from pilotwave_server.rollouts.states import RolloutState
from pilotwave_server.routing import api_router, root_router
from pilotwave_server.telemetry.distribution import count_now

public = root_router(tag="server")
api = api_router(tag="server")
METRICS_TEXT: dict[str, Any] = {"content": {"text/plain": {"schema": {"type": "string"}}}}


SILENT = DeviceFilter(standing="silent")
MOST_VERSIONS = 100


class RoleStanding(ApiReply):
    role: str = Field(description="A TUF role, as `root` or `models-detector`.")
    version: int = Field(description="The version of its valid document.")
    expires_at: datetime
    days_left: float = Field(description="Days until it expires; below zero once it has.")


class NoticeView(ApiReply):
    object: str = Field(description="What it is about, as `group/berlin`.")
    sentence: str = Field(description="What an upgrade decided, and what to do if it is wrong.")
    at: datetime


class Standing(ApiReply):
    fleet: str
    version: str = Field(description="The server's version and build, as `0.1.0+3f2a9c1e`.")
    now: datetime = Field(description="The server's time.")
    revision: int = Field(description="The fleet's revision counter.")
    bootstrapped: bool = Field(description="Whether the fleet has its root of trust.")
    models: int = Field(description="How many models there are.")
    devices: dict[str, int] = Field(description="Devices by state.")
    roles: list[RoleStanding] = Field(description="TUF roles, the next to expire first.")
    poll_interval_s: int
    check_in_interval_s: int
    notices: list[NoticeView] = Field(
        description="What upgrades and the server decided; until `pilotwave-server notices "
        "--dismiss`."
    )
    ahead: AheadView | None = Field(
        description="Devices that have seen more than this database holds: was it restored?"
    )
    roles_behind: list[RoleBehind] = Field(
        description="Roles of which devices know later documents; a lift of numbers cannot help."
    )


def install(context: Context) -> None:
    context.routers += [public, api]
    context.metrics.add_reading(lambda: read_devices(context))


@public.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={200: METRICS_TEXT, **responses(TokenMissing)},
)
async def metrics(request: Request, context: Ctx, credentials: Credentials, now: Now) -> Response:
    """Needs a viewer's token unless the setting `metrics_open` is on."""
    if not context.settings.metrics_open:
        await get_actor(request, context, credentials, now)
    content = await run_in_threadpool(context.metrics.render)
    return Response(content, media_type=CONTENT_TYPE)


@api.get("/status", summary="Get the fleet's status")
def status(viewer: Viewer, session: ReadSession, context: Ctx, now: Now) -> Standing:
    """Days to expiry of each TUF role, devices by state, counts."""
    fleet = fleet_row(session)
    expiries = sorted(registry.expiries(session), key=lambda role: role.expires_at)
    return Standing(
        fleet=fleet.fleet,
        version=build(),
        now=now,
        revision=fleet.revision,
        bootstrapped=bool(expiries),
        models=session.scalar(select(func.count()).select_from(ModelRow)) or 0,
        devices=devices.count_by_state(session),
        roles=[
            RoleStanding(
                role=role.role,
                version=role.version,
                expires_at=role.expires_at,
                days_left=role.days_left(now),
            )
            for role in expiries
        ],
        poll_interval_s=context.settings.poll_interval_s,
        check_in_interval_s=context.settings.check_in_interval_s,
        notices=[NoticeView.model_validate(row) for row in list_notices(session)],
        ahead=view(look(session)),
        roles_behind=roles_behind(roles_that_went_back(session)),
    )


def read_decisions(session: Session) -> CounterMetricFamily:
    """How often rollouts were judged so that something was done."""
    family: Any = CounterMetricFamily(
        "pilotwave_rollout_decisions",
        "Decisions about rollouts that followed from a verdict.",
        labels=["verdict"],
    )
    for verdict, count in count_decisions(session).items():
        family.add_metric([verdict], count)
    return family  # type: ignore[no-any-return]  # untyped there


def read_devices(context: Context) -> list[Metric]:
    """Devices by state, and how many of them are in trouble, for the metrics."""
    with context.db.read() as session:
        counts, in_conflict = devices.count_by_state(session), conflicts.count(session)
        failing, refusing = devices.count_failing(session), devices.count_refusing(session)
        quiet = silence(context.settings, context.clock())
        silent = devices.count_devices(session, matching(session, SILENT, quiet))
        running = sorted(count_now(session), key=lambda row: -row[2])[:MOST_VERSIONS]
        rollouts = {state.value: 0 for state in RolloutState} | count_rollouts(session)
        decisions = read_decisions(session)
    versions = GaugeMetricFamily(
        "pilotwave_version_devices",
        "Devices that run a version; the 100 versions with most devices.",
        labels=["model", "version"],
    )
    for model, version, count in running:
        versions.add_metric([model, version], count)
    return [
        versions,
        gauge("pilotwave_rollouts", "Rollouts by state.", "state", rollouts.items()),
        decisions,
        GaugeMetricFamily(
            "pilotwave_devices_silent",
            "Enrolled devices that have missed three check-ins.",
            value=silent,
        ),
        gauge("pilotwave_devices", "Devices by state.", "state", counts.items()),
        GaugeMetricFamily(
            "pilotwave_devices_in_conflict",
            "Devices whose key two machines use.",
            value=in_conflict,
        ),
        GaugeMetricFamily(
            "pilotwave_devices_failing",
            "Devices that refuse their orders, or on which a version failed or went back.",
            value=failing,
        ),
        GaugeMetricFamily(
            "pilotwave_devices_refusing",
            "Devices that refuse their orders.",
            value=refusing,
        ),
    ]
