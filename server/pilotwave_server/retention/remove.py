"""Remove bytes. The record goes first, then the file: what a crash leaves, the next round removes.

A version whose bytes are gone keeps its row and its signed metadata, which says who removed them,
when and why. It can never be offered again.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, ClassVar

from sqlalchemy import ColumnElement, Select, delete, exists, or_, select, update
from sqlalchemy.orm import Session

from pilotwave_server.audit.service import record
from pilotwave_server.blobs.port import BlobMissing, BlobStore
from pilotwave_server.blobs.tables import BlobRow
from pilotwave_server.db import Database, lock_fleet, touch_fleet
from pilotwave_server.deltas.tables import DeltaRow
from pilotwave_server.errors import Conflict, NotFound
from pilotwave_server.operators.roles import Actor
from pilotwave_server.registry.service import get_version
from pilotwave_server.registry.tables import PlanRow, VariantFileRow, VariantRow, VersionRow
from pilotwave_server.retention.plan import judge
from pilotwave_server.scope import ScopeForbids

UNSIGNED_FOR = timedelta(days=7)


class BlobInUse(Conflict):
    """A version that is not purged lists this blob."""

    code: ClassVar[str] = "blob_in_use"


class FileUnknown(NotFound):
    """The version lists no file of this path."""

    code: ClassVar[str] = "file_unknown"


@dataclass
class Removed:
    """What went: versions as `model version`, blobs by digest, and the bytes of their files."""

    versions: list[str] = field(default_factory=list)
    blobs: list[str] = field(default_factory=list)
    bytes: int = 0


def purge(
    db: Database, blobs: BlobStore, *, model: str, version: str, reason: str, actor: str,
    now: datetime,
) -> Removed:  # fmt: skip
    """Remove a version's bytes for good. ModelUnknown, VersionUnknown. A second time changes
    nothing."""
    with db.write() as session:
        lock_fleet(session)
        row = get_version(session, model=model, version=version)
        if row.purged_at is None:
            _mark(session, row, reason, actor, now)
        gone = _release(session, row, now)
        bar = update(BlobRow).where(BlobRow.sha256.in_(gone))
        session.execute(bar.values(purged_with=f"{model} {version}"))
    return _delete(blobs, gone, Removed([f"{model} {version}"]))


def readmit(
    db: Database, *, model: str, version: str, files: Collection[str] | None, reason: str,
    actor: str, now: datetime,
) -> list[str]:  # fmt: skip
    """Let bytes that were purged with a version be published again, in another one; None: those of
    all its files. Returns their digests. ModelUnknown, VersionUnknown, FileUnknown."""
    f, a, b = VariantFileRow, VariantRow, BlobRow
    with db.write() as session:
        lock_fleet(session)
        row = get_version(session, model=model, version=version)
        listed = select(f.path, f.sha256).join(a, a.id == f.variant_id)
        found = session.execute(listed.where(a.version_id == row.id)).tuples().all()
        unknown = sorted(set(files or ()) - {path for path, _ in found})
        if unknown:
            raise FileUnknown(f"{model} {version} has no file {unknown[0]}")
        meant = {sha256 for path, sha256 in found if files is None or path in files}
        barred = select(b.sha256).where(b.sha256.in_(meant), b.purged_with.is_not(None))
        freed = sorted(session.scalars(barred))
        if freed:
            session.execute(update(b).where(b.sha256.in_(freed)).values(purged_with=None))
            record(
                session, actor=actor, verb="version.readmit", object=f"version/{model}/{version}",
                now=now, before=None, after={"reason": reason, "blobs": [s[:16] for s in freed]},
            )  # fmt: skip
    return freed


def remove_blob(
    db: Database, blobs: BlobStore, *, sha256: str, actor: Actor, now: datetime
) -> None:
    """Remove a blob that no version lists. BlobInUse, BlobMissing, ScopeForbids: a token of limited
    scope removes only what it sent itself."""
    with db.write() as session:
        lock_fleet(session)
        row = session.get(BlobRow, sha256)
        if (row is None or row.removed_at is not None) and blobs.size(sha256) is None:
            raise BlobMissing(sha256)
        if actor.limited and (row is None or row.uploaded_by != str(actor)):
            raise ScopeForbids(f"{actor} may remove only what it uploaded itself")
        if session.scalar(select(_is_needed(sha256))):
            raise BlobInUse(f"a version lists the blob {sha256}: purge the version instead")
        _forget(session, [sha256], now)
        told = {"size": blobs.size(sha256)}
        record(
            session, actor=str(actor), verb="blob.remove", object=f"blob/{sha256[:16]}", now=now,
            before=told, after=None,
        )  # fmt: skip
    _delete(blobs, [sha256], Removed())


def collect(db: Database, blobs: BlobStore, *, keep_versions: int, now: datetime) -> Removed:
    """Remove what nobody needs: versions that may go, and blobs that were never signed."""
    found = Removed()
    with db.read() as session:
        verdicts = judge(session, keep_versions=keep_versions)
    for verdict in (v for v in verdicts if v.why and not v.stays):
        with db.write() as session:
            lock_fleet(session)
            again = {(v.model, v.version) for v in judge(session, keep_versions=keep_versions)
                     if v.why and not v.stays}  # fmt: skip
            if (verdict.model, verdict.version) not in again:
                continue
            row = get_version(session, model=verdict.model, version=verdict.version)
            _mark(session, row, verdict.why, "server", now)
            gone = _release(session, row, now)
        found.versions.append(f"{verdict.model} {verdict.version}")
        _delete(blobs, gone, found)
    with db.write() as session:
        lock_fleet(session)
        gone = list(session.scalars(unsigned(now)))
        _forget(session, gone, now)
    _delete(blobs, gone, found)
    _sweep(db, blobs, found)
    return found


def unsigned(now: datetime) -> Select[tuple[str]]:
    """Blobs that were uploaded a week ago or more, and that nothing lists."""
    b = BlobRow
    old = b.created_at < now - UNSIGNED_FOR, b.removed_at.is_(None)
    return select(b.sha256).where(*old, ~_is_needed(b.sha256)).order_by(b.sha256)


def _is_needed(sha256: Any) -> ColumnElement[bool]:
    """Whether a version that is not purged, a delta or a plan needs a digest (or a column of
    them)."""
    f, a, v, d, p = VariantFileRow, VariantRow, VersionRow, DeltaRow, PlanRow
    listed = (
        exists().where(f.sha256 == sha256, f.variant_id == a.id)
        .where(a.version_id == v.id, v.purged_at.is_(None))
    )  # fmt: skip
    return or_(
        listed,
        exists().where(v.sha256 == sha256),
        exists().where(d.delta_sha256 == sha256),
        exists().where(or_(p.validation_sha256 == sha256, p.head_sha256 == sha256)),
    )


def _mark(session: Session, row: VersionRow, reason: str, actor: str, now: datetime) -> None:
    row.purged_at, row.purged_reason, row.purged_by = now, reason, actor
    session.flush()
    touch_fleet(session)
    record(
        session, actor=actor, verb="version.purge", object=f"version/{row.model}/{row.version}",
        now=now, before=None, after={"reason": reason},
    )  # fmt: skip


def _release(session: Session, row: VersionRow, now: datetime) -> list[str]:
    """The digests of the version's files, and of their deltas, that nothing needs any more."""
    session.flush()
    f, a, d = VariantFileRow, VariantRow, DeltaRow
    mine = list(
        session.scalars(
            select(f.sha256).join(a, a.id == f.variant_id).where(a.version_id == row.id).distinct()
        )
    )
    gone = [sha256 for sha256 in mine if not session.scalar(select(_is_needed(sha256)))]
    touching = or_(d.from_sha256.in_(gone), d.to_sha256.in_(gone))
    deltas = list(session.scalars(select(d.delta_sha256).where(touching)))
    session.execute(delete(d).where(touching))
    _forget(session, gone, now)
    return [*gone, *(sha256 for sha256 in deltas if sha256)]


def _forget(session: Session, gone: Iterable[str], now: datetime) -> None:
    """Note that blobs are here no more; a purged version's rows go on naming them."""
    b = BlobRow
    session.execute(update(b).where(b.sha256.in_(list(gone))).values(removed_at=now))


def _delete(blobs: BlobStore, gone: Iterable[str], found: Removed) -> Removed:
    for sha256 in gone:
        found.bytes += blobs.size(sha256) or 0
        blobs.delete(sha256)
        found.blobs.append(sha256)
    return found


def _sweep(db: Database, blobs: BlobStore, found: Removed) -> None:
    """Remove files that a crash left: noted as removed, or never noted and a week old."""
    before = time.time() - UNSIGNED_FOR.total_seconds()
    with db.read() as session:
        b, d = BlobRow, DeltaRow
        here = set(session.scalars(select(b.sha256).where(b.removed_at.is_(None))))
        here |= {sha256 for sha256 in session.scalars(select(d.delta_sha256)) if sha256}
        removed = set(session.scalars(select(b.sha256).where(b.removed_at.is_not(None))))
    stray = [
        sha256
        for sha256, _ in blobs.all()
        if sha256 in removed or (sha256 not in here and blobs.age_from(sha256) < before)
    ]
    _delete(blobs, stray, found)
