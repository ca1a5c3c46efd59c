"""Whether this process runs, and whether it can serve: for load balancers and containers."""

from __future__ import annotations

import asyncio

from pydantic import Field
from starlette.concurrency import run_in_threadpool

from pilotwave_server import build, migrate
from pilotwave_server.context import Context
from pilotwave_server.db import Database, fleet_row
from pilotwave_server.deps import Ctx
from pilotwave_server.fields import ApiReply
from pilotwave_server.problems import DatabaseUnavailable, responses
from pilotwave_server.routing import root_router

public = root_router(tag="server")
PATIENCE_S = 3.0


class Health(ApiReply):
    status: str = Field(description="`ok`; anything else is a problem with status 503.")
    version: str = Field(description="The server's version and build, as `0.1.0+3f2a9c1e`.")
    migration: str = Field(description="The migration that the database is at.")
    revision: int = Field(description="The fleet's revision counter.")


class Alive(ApiReply):
    status: str = Field(description="`ok`.")
    version: str = Field(description="The server's version and build, as `0.1.0+3f2a9c1e`.")


class HealthProbe:
    """Looks at the database, once at a time however many ask: one that hangs holds one thread."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._looking: asyncio.Task[Health] | None = None

    async def ask(self) -> Health:
        """Return what the database says. Raises `DatabaseUnavailable` after `PATIENCE_S`."""
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
            migration = migrate.require_head(session)
            revision = fleet_row(session).revision
        return Health(status="ok", version=build(), migration=migration, revision=revision)


def install(context: Context) -> None:
    context.put(HealthProbe(context.db))
    context.routers.append(public)


@public.get("/livez", summary="Does the server run")
async def livez() -> Alive:
    """For what restarts a process that hangs. Says nothing of the database; needs no token."""
    return Alive(status="ok", version=build())


@public.get("/readyz", summary="Can the server serve", responses=responses(DatabaseUnavailable))
async def readyz(context: Ctx) -> Health:
    """For load balancers: whether requests may be sent here. Answers within 3 seconds, even where
    the database hangs; needs no token."""
    return await context.get(HealthProbe).ask()


@public.get("/healthz", summary="Is the server well", responses=responses(DatabaseUnavailable))
async def healthz(context: Ctx) -> Health:
    """The same as `/readyz`."""
    return await context.get(HealthProbe).ask()
