"""Which store a server has: a folder, or a bucket where the setting `blobs` names one."""

from __future__ import annotations

import re

from pilotwave_server.blobs.filesystem import FileBlobs
from pilotwave_server.blobs.port import BlobStore
from pilotwave_server.clock import Clock, utc_now
from pilotwave_server.db import Database
from pilotwave_server.errors import BadSetting
from pilotwave_server.settings import Settings

_BUCKET = re.compile(
    r"(s3|az|gs)://[A-Za-z0-9][A-Za-z0-9._-]{1,253}(/[A-Za-z0-9_][A-Za-z0-9._~-]*)*/?"
)
_EXPECTED = "expected a folder, s3://bucket/prefix, az://container/prefix or gs://bucket/prefix"


def open_store(settings: Settings, db: Database, *, clock: Clock = utc_now) -> BlobStore:
    """The store that the settings name; it is not asked anything yet. BadSetting, StoreBroken."""
    if "://" not in settings.blobs:
        return FileBlobs(settings.blobs_dir)
    if not _BUCKET.fullmatch(settings.blobs):
        raise BadSetting(f"the setting blobs (PILOTWAVE_BLOBS) is wrong: {_EXPECTED}")
    try:
        from pilotwave_server.blobs.bucket import open_bucket
    except ImportError:
        raise BadSetting(
            f"PILOTWAVE_BLOBS={settings.blobs} needs the package obstore: "
            "pip install 'pilotwave[object-storage]'"
        ) from None
    return open_bucket(settings.blobs, db, scratch=settings.data_dir / "scratch", clock=clock)
