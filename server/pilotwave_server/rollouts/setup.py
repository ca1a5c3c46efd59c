"""Put assignments, policies and rollouts into a running server, and the engine that moves them."""

from __future__ import annotations

from pilotwave_server.context import Context
from pilotwave_server.hosts.heartbeat import Heartbeat
from pilotwave_server.rollouts.assignments import routes as assignments
from pilotwave_server.rollouts.assignments.snapshot import NewestSnapshot
from pilotwave_server.rollouts.bulk import routes as bulk
from pilotwave_server.rollouts.engine.engine import Engine, EngineWorker
from pilotwave_server.rollouts.operate import routes as operate
from pilotwave_server.rollouts.operate import step_routes
from pilotwave_server.rollouts.policies import routes as policies
from pilotwave_server.rollouts.removals import routes as removals
from pilotwave_server.tracing import Tracing


def install(context: Context) -> None:
    """Look after rollouts from the server's start to its end."""
    context.routers += [
        *assignments.routers,
        bulk.router,
        operate.router,
        step_routes.router,
        *removals.routers,
        policies.router,
    ]
    check_in_s = context.settings.check_in_interval_s
    engine = Engine(
        context.db,
        context.get(NewestSnapshot),
        context.clock,
        check_in_s=check_in_s,
        listening=context.get(Heartbeat).listening_since,
        tracing=context.get(Tracing),
    )
    worker = EngineWorker(engine)
    context.put(worker)
    context.db.on_revision.append(worker.wake)
    context.workers.append(worker)
