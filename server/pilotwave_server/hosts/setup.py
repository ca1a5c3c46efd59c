"""Put the heartbeat into a running server."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily

from pilotwave_server.context import Context
from pilotwave_server.hosts.heartbeat import Heartbeat


def install(context: Context) -> None:
    """Beat from the server's start to its end."""
    heartbeat = Heartbeat(context.db, context.clock, workers=context.settings.workers)
    context.put(heartbeat)
    context.workers.append(heartbeat)
    context.metrics.add_reading(lambda: read(heartbeat))


def read(heartbeat: Heartbeat) -> Iterator[GaugeMetricFamily]:
    yield GaugeMetricFamily(
        "pilotwave_server_processes",
        "Server processes of this fleet that live, on all hosts.",
        value=heartbeat.fleet.processes,
    )
    yield GaugeMetricFamily(
        "pilotwave_clock_ahead_seconds",
        "How far this host's clock is ahead of the database's.",
        value=heartbeat.skew_s,
    )
