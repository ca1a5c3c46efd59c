"""How much room the fleet takes, and how much is left, for the metrics."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from pilotwave_server import build
from pilotwave_server.blobs.tables import BlobRow
from pilotwave_server.context import Context
from pilotwave_server.metrics import gauge
from pilotwave_server.recovery.back_up import last_backup


def install(context: Context) -> None:
    context.metrics.add_reading(lambda: read_storage(context))


def read_storage(context: Context) -> Iterator[GaugeMetricFamily]:
    """Sizes of database, files and disk; the last backup; the build."""
    with context.db.read() as session:
        database = _database_bytes(session, is_sqlite=context.db.is_sqlite)
        stored = select(func.sum(BlobRow.size)).where(BlobRow.removed_at.is_(None))
        blobs = int(session.scalar(stored) or 0)
        backup = last_backup(session)
    disk = shutil.disk_usage(context.settings.data_dir)
    yield GaugeMetricFamily("pilotwave_database_bytes", "Size of the database.", value=database)
    yield GaugeMetricFamily("pilotwave_blob_bytes", "Bytes of models' files.", value=blobs)
    yield GaugeMetricFamily(
        "pilotwave_disk_free_bytes", "Free bytes of the data folder's disk.", value=disk.free
    )
    yield GaugeMetricFamily(
        "pilotwave_disk_size_bytes", "Size of the data folder's disk.", value=disk.total
    )
    yield gauge(
        "pilotwave_build_info", "1; the label is this server's version.", "version", [(build(), 1)]
    )
    if backup is not None:
        yield GaugeMetricFamily(
            "pilotwave_backup_timestamp_seconds",
            "When the last backup by this program ended, in seconds since 1970.",
            value=backup.timestamp(),
        )


def _database_bytes(session: Session, *, is_sqlite: bool) -> int:
    if is_sqlite:
        pages = session.scalar(text("PRAGMA page_count")) or 0
        return int(pages * (session.scalar(text("PRAGMA page_size")) or 0))
    return int(session.scalar(select(func.pg_database_size(func.current_database()))) or 0)
