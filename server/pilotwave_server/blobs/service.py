"""Which blobs are still to be sent, and the record of those that came."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from pilotwave_server.blobs.port import BlobStore
from pilotwave_server.blobs.tables import BlobRow
from pilotwave_server.db import upsert
from pilotwave_server.errors import Invalid


class SizeMismatch(Invalid):
    code = "size_mismatch"


@dataclass(frozen=True)
class Missing:
    """A blob that is not whole here; `offset` bytes of it are kept from an earlier upload."""

    sha256: str
    offset: int


def find_missing(store: BlobStore, wanted: Iterable[tuple[str, int]]) -> list[Missing]:
    """Of `wanted` (sha256, size) those that are not here, in order, each once.

    Raises SizeMismatch for one that is here with another size: then the caller's size is wrong.
    """
    missing: dict[str, Missing] = {}
    for sha256, size in wanted:
        stored = store.size(sha256)
        if stored is None:
            missing[sha256] = Missing(sha256, store.partial(sha256))
        elif stored != size:
            raise SizeMismatch(f"blob {sha256} has {stored} bytes, not {size}", size=stored)
    return list(missing.values())


def record(session: Session, *, sha256: str, size: int, by: str | None, now: datetime) -> None:
    """Note that a blob is wholly stored. Noting it again, also at the same time, is no error."""
    row = {"sha256": sha256, "size": size, "created_at": now, "uploaded_by": by, "removed_at": None}
    there_again = BlobRow.removed_at.is_not(None)
    upsert(session, BlobRow, [row], changing=["removed_at"], where=there_again)
