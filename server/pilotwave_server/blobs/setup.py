"""Put the blob store into a running server."""

from __future__ import annotations

from pilotwave_server.blobs.choose import open_store
from pilotwave_server.blobs.flow import BlobGates
from pilotwave_server.blobs.port import BlobStore
from pilotwave_server.blobs.routes import routers
from pilotwave_server.blobs.watch import StoreWatch
from pilotwave_server.context import Context
from pilotwave_server.hosts.heartbeat import Heartbeat


def install(context: Context) -> None:
    store = open_store(context.settings, context.db, clock=context.clock)
    context.put(store, kind=BlobStore)
    context.put(BlobGates())
    watch = StoreWatch(store, context.get(Heartbeat))
    context.put(watch)
    context.workers.append(watch)
    context.metrics.add_reading(watch.read)
    context.routers += routers
