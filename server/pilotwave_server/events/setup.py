"""Put the audit log and the stream of events into a running server."""

from __future__ import annotations

import time

from pilotwave_server.context import Context
from pilotwave_server.events import audit_routes, routes
from pilotwave_server.events.hub import Hub
from pilotwave_server.events.settled import Settled
from pilotwave_server.workers import Periodic

LOOK_S = 0.25
LOOKS_AT_START = 100


def install(context: Context) -> None:
    """Follow the tables from the server's start to its end."""
    settled = Settled(context.db)
    hub = Hub(context.db, settled)
    context.put(settled)
    context.put(hub)
    context.routers += [audit_routes.router, routes.router]
    context.closing.append(hub.close)
    context.workers.append(Follower(hub))


class Follower:
    """Looks every LOOK_S. Its first looks are over when it has started."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._again = Periodic("events", hub.follow, interval_s=LOOK_S)

    def start(self) -> None:
        for _ in range(LOOKS_AT_START):
            self._hub.follow()
            if self._hub.settled.known:
                break
            time.sleep(LOOK_S / 10)
        self._again.start()

    def stop(self) -> None:
        self._hub.close()
        self._again.stop()
