"""Which blobs are still to be sent, and the record of those that came."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from pilotwave_server.blobs.port import BlobStore
from pilotwave_server.blobs.tables import BlobRow
from pilotwave_server.db import upsert
from pilotwave_server.errors import Conflict, Invalid


class SizeMismatch(Invalid):
    code = "size_mismatch"


class BlobPurged(Conflict):
    """These bytes were removed for good with a version; an admin may allow them again."""

    code: ClassVar[str] = "blob_purged"


def check_not_purged(session: Session, wanted: Iterable[str]) -> None:
    """Raise BlobPurged if one of these digests was purged and not allowed again since."""
    b, left = BlobRow, sorted(set(wanted))
    for start in range(0, len(left), 500):
        part = b.sha256.in_(left[start : start + 500])
        found = session.execute(
            select(b.sha256, b.purged_with).where(part, b.purged_with.is_not(None)).limit(1)
        ).first()
        if found is not None:
            model, _, version = found[1].partition(" ")
            raise BlobPurged(
                f"the bytes {found[0]} were purged for good with {model} {version}; leave the file"
                " out, or let an admin allow it:"
                f" `pilotwave versions readmit {model} {version} --file PATH --reason WHY`",
                sha256=found[0],
                purged_with=found[1],
            )


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
    listed = list(wanted)
    here = store.sizes({sha256 for sha256, _ in listed})
    for sha256, size in listed:
        stored = here[sha256]
        if stored is None:
            missing[sha256] = Missing(sha256, store.partial(sha256))
        elif stored != size:
            raise SizeMismatch(f"blob {sha256} has {stored} bytes, not {size}", size=stored)
    return list(missing.values())


def record(session: Session, *, sha256: str, size: int, by: str | None, now: datetime) -> None:
    """Note that a blob is wholly stored. Noting it again, also at the same time, is no error.
    BlobPurged where it was purged while it came."""
    check_not_purged(session, [sha256])
    row = {"sha256": sha256, "size": size, "created_at": now, "uploaded_by": by, "removed_at": None}
    there_again = BlobRow.removed_at.is_not(None)
    upsert(session, BlobRow, [row], changing=["removed_at"], where=there_again)
