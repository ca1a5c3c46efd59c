"""Put deltas into a running server."""

from __future__ import annotations

from pilotwave_server.context import Context
from pilotwave_server.deltas import routes
from pilotwave_server.deltas.worker import DeltaWorker

routers = [routes.api, routes.public]


def install(context: Context) -> None:
    """Make deltas from the server's start to its end. The fleet must be in the context already."""
    processes = context.settings.delta_processes
    if not processes:
        return
    worker = DeltaWorker(
        context.db,
        context.blobs,
        lambda: context.fleet.snapshot,
        clock=context.clock,
        processes=processes,
        folder=context.settings.data_dir / "deltas",
    )
    context.workers.append(worker)
    context.db.on_revision.append(worker.wake)
