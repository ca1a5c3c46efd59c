"""The registry's part of a running server: its trust store, background work, routes, readings."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily

from pilotwave_server.blobs.port import BlobStore
from pilotwave_server.context import Context
from pilotwave_server.registry import routes, service, trust_routes, tuf_routes
from pilotwave_server.registry.fresh_export import FreshExport
from pilotwave_server.registry.resealer import CHECK_INTERVAL_S, keep_fresh
from pilotwave_server.registry.trust import TrustStore
from pilotwave_server.settings import DAY_S
from pilotwave_server.workers import Periodic

SWEEP_INTERVAL_S = 3600
# An upload that nobody has gone on with for a week is given up.
GIVEN_UP_S = 7 * 86_400


def install(context: Context) -> None:
    """Let the trust store start and stop with the server."""
    # It tells of every key of a threshold that has not signed, which is no news.
    logging.getLogger("tuf").setLevel(logging.WARNING)
    trust = TrustStore(context.db, context.settings.data_dir, context.keys)
    context.put(trust)
    context.put(FreshExport(trust, shared_folder=context.db.is_sqlite))
    context.routers += [routes.router, trust_routes.router, tuf_routes.router]
    blobs = context.get(BlobStore)
    reseal = Periodic(
        "reseal",
        lambda: keep_fresh(context.db, trust, now=context.clock()),
        interval_s=CHECK_INTERVAL_S,
    )
    sweep = Periodic(
        "sweep-uploads",
        lambda: blobs.sweep(older_than_s=GIVEN_UP_S),
        interval_s=SWEEP_INTERVAL_S,
    )
    # In this order: nothing is signed before what a crash left unwritten is written.
    context.workers += [trust, reseal, sweep]
    context.metrics.add_reading(lambda: read_expiries(context))


def read_expiries(context: Context) -> Iterator[GaugeMetricFamily]:
    """Seconds until each role's metadata expires."""
    gauge = GaugeMetricFamily(
        "pilotwave_metadata_expiry_seconds",
        "Seconds until the valid TUF metadata of a role expires; installs stop at zero.",
        labels=["role"],
    )
    now = context.clock()
    with context.db.read() as session:
        for expiry in service.expiries(session):
            gauge.add_metric([expiry.role], DAY_S * expiry.days_left(now))
    yield gauge
