"""Put the blob store into a running server."""

from __future__ import annotations

from pilotwave_server.blobs.filesystem import FileBlobs
from pilotwave_server.blobs.flow import BlobGates
from pilotwave_server.blobs.routes import routers
from pilotwave_server.context import Context


def install(context: Context) -> None:
    context.put(FileBlobs(context.settings.blobs_dir))
    context.put(BlobGates())
    context.routers += routers
