"""Put webhooks into a running server."""

from __future__ import annotations

from pilotwave_server.context import Context
from pilotwave_server.webhooks.routes import router
from pilotwave_server.webhooks.sender import Sender

routers = [router]
TIMEOUT_S = 10.0


def install(context: Context) -> None:
    """Send from the server's start to its end. The events must be in the context already."""
    sender = Sender(
        context.db,
        context.settled,
        clock=context.clock,
        metrics=context.metrics,
        allowed=context.settings.webhook_targets,
        timeout_s=TIMEOUT_S,
    )
    context.workers.append(sender)
