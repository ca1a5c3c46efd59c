"""Put deltas into a running server."""

from __future__ import annotations

from pilotwave_server.blobs.port import BlobStore
from pilotwave_server.context import Context
from pilotwave_server.deltas import routes
from pilotwave_server.deltas.worker import DeltaWorker
from pilotwave_server.rollouts.assignments.snapshot import NewestSnapshot


def install(context: Context) -> None:
    """Make deltas from the server's start to its end."""
    context.routers += [routes.api, routes.public]
    processes = context.settings.delta_processes
    if not processes:
        return
    worker = DeltaWorker(
        context.db,
        context.get(BlobStore),
        context.get(NewestSnapshot).read,
        clock=context.clock,
        processes=processes,
        folder=context.settings.data_dir / "deltas",
    )
    context.workers.append(worker)
    context.db.on_revision.append(worker.wake)
