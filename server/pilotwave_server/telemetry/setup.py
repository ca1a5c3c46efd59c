"""Put the count of versions over time, and the end of old events, into a running server."""

from __future__ import annotations

from pilotwave_server.context import Context
from pilotwave_server.telemetry.distribution import note
from pilotwave_server.telemetry.retention import clean
from pilotwave_server.telemetry.routes import router
from pilotwave_server.workers import Periodic

CLEAN_S = 600


def install(context: Context) -> None:
    """Count from the server's start to its end."""
    context.routers.append(router)
    interval_s = context.settings.distribution_interval_s

    def tick() -> None:
        note(context.db, now=context.clock(), interval_s=interval_s)

    def forget() -> None:
        settings = context.settings
        clean(
            context.db,
            now=context.clock(),
            days=settings.event_days,
            per_device=settings.events_per_device,
        )

    context.workers.append(Periodic("retention", forget, interval_s=CLEAN_S, can_wait=True))
    # looks twice an interval, so that no tick is missed by a hair; the second look costs a query
    context.workers.append(Periodic("distribution", tick, interval_s=interval_s / 2, can_wait=True))
