"""The hourly round that removes what nobody needs."""

from __future__ import annotations

from pilotwave_server.blobs.port import BlobStore
from pilotwave_server.context import Context
from pilotwave_server.retention import remove
from pilotwave_server.retention.routes import router
from pilotwave_server.workers import Periodic

INTERVAL_S = 3600.0


def install(context: Context) -> None:
    """Let the rounds start and stop with the server."""

    context.routers.append(router)
    blobs = context.get(BlobStore)

    def work() -> None:
        keep = context.settings.keep_versions
        remove.collect(context.db, blobs, keep_versions=keep, now=context.clock())

    context.workers.append(Periodic("retention", work, interval_s=INTERVAL_S, can_wait=True))
