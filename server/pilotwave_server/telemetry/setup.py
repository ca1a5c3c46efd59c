"""Put the count of versions over time into a running server."""

from __future__ import annotations

from pilotwave_server.context import Context
from pilotwave_server.telemetry.distribution import note
from pilotwave_server.telemetry.routes import router
from pilotwave_server.workers import Periodic

routers = [router]


def install(context: Context) -> None:
    """Count from the server's start to its end."""
    interval_s = context.settings.distribution_interval_s

    def tick() -> None:
        note(context.db, now=context.clock(), interval_s=interval_s)

    # looks twice an interval, so that no tick is missed by a hair; the second look costs a query
    context.workers.append(Periodic("distribution", tick, interval_s=interval_s / 2, can_wait=True))
