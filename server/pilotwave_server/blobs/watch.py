"""Look at the blob store now and then, for `/readyz`, the metrics and the other hosts: none of them
waits for it."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily

from pilotwave_server.blobs.port import BlobStore
from pilotwave_server.errors import ServerError
from pilotwave_server.hosts.heartbeat import Heartbeat
from pilotwave_server.workers import Periodic

log = logging.getLogger(__name__)
LOOK_S = 20.0


class StoreWatch(Periodic):
    """`trouble` is why blobs could not be reached at the last look; None: they could."""

    def __init__(self, store: BlobStore, heartbeat: Heartbeat) -> None:
        super().__init__("blob-store", self._look, interval_s=LOOK_S)
        self._store, self._heartbeat = store, heartbeat
        self.trouble: str | None = None
        self.wake()

    def _look(self) -> None:
        before = self.trouble
        try:
            self._store.check()
            self._heartbeat.blob_store = self._store.identity()
            self.trouble = None
        except ServerError as error:
            self.trouble = str(error)
        if self.trouble and not before:
            log.warning("blobs cannot be reached: %s", self.trouble)
        elif before and not self.trouble:
            log.warning("blobs can be reached again: %s", self._store.name)

    @property
    def name(self) -> str:
        """What the store is, for people."""
        return self._store.name

    def read(self) -> Iterator[GaugeMetricFamily]:
        """The gauge of the last look."""
        yield GaugeMetricFamily(
            "pilotwave_blob_store_up",
            "Whether the blob store could be reached at the last look, 20 s ago at most.",
            value=float(self.trouble is None),
        )
