"""Put downloads into a running server."""

from __future__ import annotations

from pilotwave_server.context import Context
from pilotwave_server.downloads import routes
from pilotwave_server.downloads.admission import Admission
from pilotwave_server.downloads.counting import FLUSH_S, Counting
from pilotwave_server.downloads.limits_watch import LimitsWatch
from pilotwave_server.hosts.heartbeat import Heartbeat
from pilotwave_server.workers import Periodic

MOST_WAITING = 2000


def install(context: Context) -> None:
    """Make the desk, have limits read and counts written from the server's start to its end."""
    settings, heartbeat = context.settings, context.get(Heartbeat)
    desk = Admission(
        counting=Counting(context.db),
        metrics=context.metrics,
        most=settings.max_downloads,
        per_device=settings.max_downloads_per_device,
        waiting=MOST_WAITING,
        processes=settings.workers,
        of_fleet=lambda: max(heartbeat.fleet.processes, settings.workers),
        total_kbps=settings.max_download_kbps,
    )

    looking = LimitsWatch(context.db, desk)
    context.put(desk)
    context.put(looking)
    context.routers.append(routes.router)
    context.workers += [
        looking,
        Periodic("bytes-sent", desk.counting.flush, interval_s=FLUSH_S, at_stop=True),
    ]
