"""Put captured cases into a running server."""

from __future__ import annotations

from datetime import timedelta

from pilotwave_server.captures.routes import router
from pilotwave_server.captures.service import forget
from pilotwave_server.context import Context
from pilotwave_server.workers import Periodic

FORGET_S = 3600.0


def install(context: Context) -> None:
    """Answer operators, and forget what is old."""
    keep = timedelta(days=context.settings.captures_keep_days)

    def clean() -> None:
        with context.db.write() as session:
            forget(session, keep=keep, now=context.clock())

    context.routers.append(router)
    context.workers.append(Periodic("captures", clean, interval_s=FORGET_S, can_wait=True))
