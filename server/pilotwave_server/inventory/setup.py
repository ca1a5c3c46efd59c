"""Put the operators' view of devices, and the look for silent ones, into a running server."""

from __future__ import annotations

from pilotwave_server.context import Context
from pilotwave_server.devices.silence_sweep import SilenceSweep
from pilotwave_server.devices.silence_watch import LOOK_S
from pilotwave_server.hosts.heartbeat import Heartbeat
from pilotwave_server.inventory.routes import router
from pilotwave_server.workers import Periodic


def install(context: Context) -> None:
    listening = context.get(Heartbeat).listening_since
    sweep = SilenceSweep(context.db, context.settings, context.clock, listening)
    context.routers.append(router)
    context.workers.append(Periodic("silence", sweep.look, interval_s=LOOK_S, can_wait=True))
