"""The server put together: slices, faces, background work, and what stands before them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Receive, Scope, Send

from pilotwave_server import (
    __version__,
    health,
    openapi,
    openfiles,
    problems,
    storage,
    system,
    tracing,
)
from pilotwave_server.api_limits import ApiLimits
from pilotwave_server.attention import setup as attention
from pilotwave_server.base_path import BasePath, without_base
from pilotwave_server.blobs import setup as blobs
from pilotwave_server.captures import setup as captures
from pilotwave_server.clock import Clock, utc_now
from pilotwave_server.connections import Connections
from pilotwave_server.context import Context
from pilotwave_server.crowds import Crowds
from pilotwave_server.dashboard import error_pages
from pilotwave_server.dashboard import setup as dashboard
from pilotwave_server.db import Database
from pilotwave_server.deltas import setup as deltas
from pilotwave_server.deps import is_known
from pilotwave_server.device_api import setup as device_api
from pilotwave_server.device_api.setup import DeviceApi
from pilotwave_server.diagnostics import setup as diagnostics
from pilotwave_server.downloads import setup as downloads
from pilotwave_server.edge import BodyRule, Edge
from pilotwave_server.events import setup as events
from pilotwave_server.fleet import setup as fleet
from pilotwave_server.groups import setup as groups
from pilotwave_server.hosts import setup as hosts
from pilotwave_server.inventory import setup as inventory
from pilotwave_server.keystore.choose import open_keys
from pilotwave_server.learning import setup as learning
from pilotwave_server.metrics import Metrics
from pilotwave_server.operator_api import setup as operator_api
from pilotwave_server.pacing import Pacing
from pilotwave_server.recovery import setup as recovery
from pilotwave_server.registry import setup as registry
from pilotwave_server.retention import setup as retention
from pilotwave_server.rollouts import setup as rollouts
from pilotwave_server.routing import API
from pilotwave_server.settings import Settings, check_settings
from pilotwave_server.telemetry import setup as telemetry
from pilotwave_server.webhooks import setup as webhooks
from pilotwave_server.workers import FAILURES

MAX_METADATA_BYTES = 8 << 20

# Each finds in the context what those before it have put there. Work starts in this order, and
# stops in the opposite one.
INSTALL: tuple[Callable[[Context], None], ...] = (
    health.install,
    tracing.install,
    system.install,
    hosts.install,
    storage.install,
    attention.install,
    operator_api.install,
    blobs.install,
    registry.install,
    downloads.install,
    fleet.install,
    recovery.install,
    inventory.install,
    diagnostics.install,
    captures.install,
    learning.install,
    groups.install,
    rollouts.install,
    device_api.install,
    dashboard.install,
    events.install,
    webhooks.install,
    deltas.install,
    telemetry.install,
    retention.install,
)


class PilotwaveApp:
    """The whole server as one ASGI app; `context` is the state inside it."""

    def __init__(self, context: Context) -> None:
        self.context = context
        devices = context.get(DeviceApi)
        self.fastapi = make_fastapi(context)
        edge = Edge(
            self.fastapi,
            metrics=context.metrics,
            max_bytes=context.settings.max_body_bytes,
            rules=body_rules(context.settings),
            is_known=lambda request: is_known(request, context),
            pacing=context.pacing,
            behind_proxy=bool(context.settings.trusted_proxies),
            refusal=error_pages.refusal(self.fastapi),
        )
        self._asgi: ASGIApp = devices.in_front_of(edge)
        if base := context.settings.base_path:
            self._asgi = BasePath(self._asgi, base)
        self.websockets = devices.websockets
        self.connections = make_connections(context.settings, devices)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._asgi(scope, receive, send)

    def drain(self) -> None:
        """Have load balancers send nothing more; whatever comes is still served."""
        self.context.get(health.HealthProbe).draining = True

    def close(self) -> None:
        """End the answers that have no end of their own, before the server waits for all."""
        for close in self.context.closing:
            close()


def create_app(settings: Settings, *, clock: Clock = utc_now) -> PilotwaveApp:
    """A server on a data folder and database that `init` has made. BadSetting."""
    check_settings(settings)
    db = Database(settings.resolved_database_url, **settings.database_options)
    context = Context(
        settings=settings,
        db=db,
        keys=open_keys(settings, db),
        clock=clock,
        metrics=Metrics(FAILURES),
        pacing=Pacing(),
        api_limits=ApiLimits(settings.api_requests_per_second),
    )
    for install in INSTALL:
        install(context)
    return PilotwaveApp(context)


def make_connections(settings: Settings, devices: DeviceApi) -> Connections:
    """What makes the connections' protocol objects, within the limit of open files."""
    files = openfiles.for_connections(openfiles.limit())
    most = min(settings.max_connections or files, files)
    base = settings.base_path

    def is_of_devices(path: str) -> bool:
        return without_base(path, base).startswith("/device/")

    def room() -> int:
        return min(most, files - devices.push.held)

    return Connections(
        Crowds(
            room=room,
            per_address=settings.max_connections_per_address,
            is_proxy=settings.is_trusted_proxy,
        ),
        certified=is_of_devices if settings.tls_client_ca else None,
    )


def body_rules(settings: Settings) -> list[BodyRule]:
    upload = re.compile(rf"{API}/blobs/[^/]+/upload")
    metadata = re.compile(rf"{API}/(?:models/[^/]+/metadata|trust/[^/]+)")
    return [
        BodyRule(upload, settings.max_upload_bytes, raw=True),
        BodyRule(metadata, MAX_METADATA_BYTES),
    ]


def make_fastapi(context: Context) -> FastAPI:
    app = FastAPI(
        title="Pilotwave",
        version=__version__,
        generate_unique_id_function=lambda route: route.name,
        openapi_url=None,  # openapi.install answers with it
        redoc_url=None,
        lifespan=lifespan(context),
        redirect_slashes=False,
    )
    app.state.pilotwave = context
    problems.install(app)
    error_pages.install(app)
    openapi.install(app)
    for router in context.routers:
        app.include_router(router)
    return app


def lifespan(context: Context) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """Start the background work with the server, stop it in the opposite order at its end."""

    def start(stack: ExitStack) -> None:
        for worker in context.workers:
            worker.start()
            stack.callback(worker.stop)

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        stack = ExitStack()
        stack.callback(context.db.close)
        context.loop = asyncio.get_running_loop()
        try:
            await run_in_threadpool(start, stack)
            yield
        finally:
            await run_in_threadpool(stack.close)

    return running
