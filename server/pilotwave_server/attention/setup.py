"""Put what needs attention into a running server."""

from __future__ import annotations

from pilotwave_server.attention.routes import router
from pilotwave_server.context import Context


def install(context: Context) -> None:
    context.routers.append(router)
