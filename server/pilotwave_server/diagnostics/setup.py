"""Put diagnostics into a running server."""

from __future__ import annotations

from pilotwave_server.context import Context
from pilotwave_server.diagnostics.routes import router
from pilotwave_server.diagnostics.service import forget
from pilotwave_server.workers import Periodic

FORGET_S = 3600.0


def install(context: Context) -> None:
    """Answer operators, and forget what is old."""

    def clean() -> None:
        with context.db.write() as session:
            forget(session, now=context.clock())

    context.routers.append(router)
    context.workers.append(Periodic("diagnostics", clean, interval_s=FORGET_S, can_wait=True))
