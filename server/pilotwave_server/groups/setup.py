"""Put groups into a running server."""

from __future__ import annotations

from pilotwave_server.context import Context
from pilotwave_server.groups.routes import router


def install(context: Context) -> None:
    context.routers.append(router)
