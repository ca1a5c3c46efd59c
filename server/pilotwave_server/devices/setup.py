"""Put the operators' view of devices into a running server."""

from __future__ import annotations

from pilotwave_server.context import Context
from pilotwave_server.devices.routes import router


def install(context: Context) -> None:
    context.routers.append(router)
