"""Find the references of variants that devices run: the shares that count as drift beyond."""

from __future__ import annotations

import contextlib
from functools import lru_cache

from sqlalchemy import select
from sqlalchemy.orm import Session

from pilotwave_protocol.reference import (
    MAX_REFERENCE_BYTES,
    REFERENCE,
    BadReference,
    Reference,
    parse_reference,
)
from pilotwave_server.blobs.port import BlobMissing, BlobStore, StoreBroken
from pilotwave_server.registry.tables import VariantFileRow, VariantRow, VersionRow


def reference_of(
    session: Session, blobs: BlobStore, *, sha256: str, variant: str
) -> Reference | None:
    """The reference of a variant of the version whose manifest has this digest; None where it has
    none, or one that cannot be read now."""
    query = (
        select(VariantFileRow.sha256)
        .join(VariantRow, VariantRow.id == VariantFileRow.variant_id)
        .join(VersionRow, VersionRow.id == VariantRow.version_id)
        .where(
            VersionRow.sha256 == sha256,
            VariantRow.name == variant,
            VariantFileRow.path == REFERENCE,
            VariantFileRow.size <= MAX_REFERENCE_BYTES,
        )
    )
    found = session.scalars(query.limit(1)).first()
    if found is None:
        return None
    with contextlib.suppress(BlobMissing, StoreBroken):
        return _parsed(blobs.read(found, MAX_REFERENCE_BYTES))
    return None


@lru_cache(maxsize=64)
def _parsed(raw: bytes) -> Reference | None:
    try:
        return parse_reference(raw)
    except BadReference:
        return None  # a file of this name that is something else
