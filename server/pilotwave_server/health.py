"""Whether this process runs, and whether it can serve: for load balancers and containers."""

from __future__ import annotations

import asyncio

from pydantic import Field
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from pilotwave_server import build, migrate
from pilotwave_server.blobs.watch import StoreWatch
from pilotwave_server.clock import utc_now
from pilotwave_server.context import Context
from pilotwave_server.db import fleet_row
from pilotwave_server.deps import Ctx
from pilotwave_server.errors import Unavailable
from pilotwave_server.fields import ApiReply
from pilotwave_server.hosts.heartbeat import Heartbeat, database_time
from pilotwave_server.hosts.living import BlobsApart
from pilotwave_server.problems import DatabaseUnavailable, responses
from pilotwave_server.registry.own_keys import OtherKeys, check_own_keys
from pilotwave_server.routing import root_router

public = root_router(tag="server")
PATIENCE_S = 3.0
CLOCK_S = 60.0
"""A host whose clock differs more from the database's gives out tokens, leases and dates that the
others do not believe."""


class Draining(Unavailable):
    """The server was told to end; it finishes what it has."""

    code = "draining"


class ClockDiffers(Unavailable):
    """This host's clock is not the database's."""

    code = "clock_differs"


class Health(ApiReply):
    status: str = Field(description="`ok`; anything else is a problem with status 503.")
    version: str = Field(description="The server's version and build, as `0.1.0+3f2a9c1e`.")
    migration: str = Field(description="The migration that the database is at.")
    revision: int = Field(description="The fleet's revision counter.")
    blobs: str = Field(
        description="`ok`, or why this process could not reach the blob store at its last look, "
        "20 seconds ago at most."
    )


class Alive(ApiReply):
    status: str = Field(description="`ok`.")
    version: str = Field(description="The server's version and build, as `0.1.0+3f2a9c1e`.")


class HealthProbe:
    """Looks at the database, once at a time however many ask: one that hangs holds one thread."""

    def __init__(self, context: Context) -> None:
        self._context, self._db = context, context.db
        self._looking: asyncio.Task[Health] | None = None
        self.draining = False
        self._keys_right_at = -1
        """The fleet's revision at which the keys were looked at and found right."""

    async def ask(self) -> Health:
        """Return what the database says. Raises `Draining`, `ClockDiffers`, `BlobsApart`,
        `OtherKeys`, and `DatabaseUnavailable` after `PATIENCE_S`."""
        if self.draining:
            raise Draining("this server was told to end: send requests to another")
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(run_in_threadpool(self._look))
        task = self._looking
        done, _ = await asyncio.wait({task}, timeout=PATIENCE_S)
        if not done:
            raise DatabaseUnavailable(
                f"The database has not answered for {PATIENCE_S:g} s; look whether it runs, and "
                "whether this host reaches it."
            )
        return task.result()

    def _look(self) -> Health:
        with self._db.read() as session:
            migration = migrate.require_usable(session)
            revision = fleet_row(session).revision
            check_clock(session)
            if revision != self._keys_right_at:
                check_own_keys(session, self._context.keys)
                self._keys_right_at = revision
        store = self._context.get(StoreWatch)
        if host := self._context.get(Heartbeat).fleet.apart_from:
            raise BlobsApart(store.name, host)
        return Health(
            status="ok",
            version=build(),
            migration=migration,
            revision=revision,
            blobs=store.trouble or "ok",
        )


def check_clock(session: Session) -> None:
    """Raise `ClockDiffers` where this host and the database's disagree about the time."""
    if session.get_bind().dialect.name != "postgresql":
        return
    ahead_s = (utc_now() - database_time(session)).total_seconds()
    if abs(ahead_s) > CLOCK_S:
        raise ClockDiffers(
            f"this host's clock is {abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} "
            "the database's: set the clocks of all hosts by NTP"
        )


def install(context: Context) -> None:
    context.put(HealthProbe(context))
    context.routers.append(public)


@public.get("/livez", summary="Does the server run")
async def livez() -> Alive:
    """For what restarts a process that hangs. Says nothing of the database; needs no token."""
    return Alive(status="ok", version=build())


@public.get(
    "/readyz",
    summary="Can the server serve",
    responses=responses(DatabaseUnavailable, Draining, ClockDiffers, BlobsApart, OtherKeys),
)
async def readyz(context: Ctx) -> Health:
    """For load balancers: whether requests may be sent here. Answers within 3 seconds, even where
    the database hangs; needs no token. A blob store that is away is told and is no reason to send
    no requests: polls and check-ins need none, and all hosts share it."""
    return await context.get(HealthProbe).ask()


@public.get(
    "/healthz",
    summary="Is the server well",
    responses=responses(DatabaseUnavailable, Draining, ClockDiffers, BlobsApart, OtherKeys),
)
async def healthz(context: Ctx) -> Health:
    """The same as `/readyz`."""
    return await context.get(HealthProbe).ask()
