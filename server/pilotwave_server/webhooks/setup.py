"""Put webhooks into a running server."""

from __future__ import annotations

from pilotwave_server.context import Context
from pilotwave_server.events.settled import Settled
from pilotwave_server.webhooks.routes import router
from pilotwave_server.webhooks.sender import Sender

TIMEOUT_S = 10.0


def install(context: Context) -> None:
    """Send from the server's start to its end."""
    sender = Sender(
        context.db,
        context.get(Settled),
        clock=context.clock,
        metrics=context.metrics,
        allowed=context.settings.webhook_targets,
        timeout_s=TIMEOUT_S,
    )
    context.routers.append(router)
    context.workers.append(sender)
