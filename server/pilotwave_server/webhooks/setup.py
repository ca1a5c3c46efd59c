"""Put webhooks into a running server."""

from __future__ import annotations

from prometheus_client.core import GaugeMetricFamily

from pilotwave_server.context import Context
from pilotwave_server.events.settled import Settled
from pilotwave_server.webhooks.deliveries import count_waiting
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
    context.metrics.add_reading(lambda: read_backlog(context))


def read_backlog(context: Context) -> list[GaugeMetricFamily]:
    """What waits to be sent, for the metrics."""
    with context.db.read() as session:
        count, oldest = count_waiting(session)
    age = (context.clock() - oldest).total_seconds() if oldest else 0.0
    return [
        GaugeMetricFamily(
            "pilotwave_webhook_waiting", "Events that wait to be sent to webhooks.", value=count
        ),
        GaugeMetricFamily(
            "pilotwave_webhook_waiting_seconds",
            "How long the oldest of them has waited.",
            value=max(0.0, age),
        ),
    ]
