"""The registry's tables.

`tuf_metadata` holds the signed truth; the other tables repeat what it and the manifests say, in a
form that can be listed and joined. They are only ever written together (`publish`, `rotation`).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    LargeBinary,
    String,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from pilotwave_server.db import Base, BigId, JsonB, UtcDateTime


class TufMetadataRow(Base):
    """One signed TUF document. A row is never changed; a role's newest version is the valid one."""

    __tablename__ = "tuf_metadata"
    __table_args__ = (CheckConstraint("version > 0", name="version"),)

    role: Mapped[str] = mapped_column(String(80), primary_key=True)
    version: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    document: Mapped[bytes] = mapped_column(LargeBinary)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class ModelRow(Base):
    """A model. `publishers` are the ids of the keys that hold its role, of which `threshold` must
    sign; below the release counter `floor` its publisher wants nothing installed."""

    __tablename__ = "models"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    publishers: Mapped[list[str]] = mapped_column(JsonB)
    threshold: Mapped[int] = mapped_column()
    floor: Mapped[int] = mapped_column(BigInteger, default=0)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    created_by: Mapped[str] = mapped_column(String(200))


class VersionRow(Base):
    """A version: what its signed target and its manifest say, and what was said of it since.

    `yanked_*` is the publisher's word, `denied_*` an operator's; `pruned_at` says since when the
    publisher's role lists it no more, because it is below the floor; `purged_at` since when its
    bytes are gone for good. `traceparent` is the trace of its publication (`tracing`).
    """

    __tablename__ = "versions"
    __table_args__ = (UniqueConstraint("model", "version"), UniqueConstraint("model", "counter"))

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    model: Mapped[str] = mapped_column(ForeignKey("models.name"))
    version: Mapped[str] = mapped_column(String(64))
    counter: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    length: Mapped[int] = mapped_column(BigInteger)
    manifest: Mapped[bytes] = mapped_column(LargeBinary, deferred=True)
    unsafe_format: Mapped[bool] = mapped_column(default=False)
    role_version: Mapped[int] = mapped_column(BigInteger)
    signers: Mapped[list[str]] = mapped_column(JsonB)
    published_at: Mapped[datetime] = mapped_column(UtcDateTime)
    published_by: Mapped[str] = mapped_column(String(200))
    yanked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    yanked_reason: Mapped[str | None] = mapped_column(String(512))
    denied_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    denied_reason: Mapped[str | None] = mapped_column(String(512))
    denied_by: Mapped[str | None] = mapped_column(String(200))
    pruned_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    purged_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    purged_reason: Mapped[str | None] = mapped_column(String(512))
    purged_by: Mapped[str | None] = mapped_column(String(200))
    traceparent: Mapped[str | None] = mapped_column(String(55))
    variants: Mapped[list[VariantRow]] = relationship(order_by="VariantRow.position")


class PlanRow(Base):
    """A training plan as its publisher signed it. Whether it holds still, the model's policy says;
    `validation_sha256` is the blob of the publisher's own examples, `head_sha256` that of the head
    that the first of several rounds goes on from, if it has one."""

    __tablename__ = "plans"
    __table_args__ = (UniqueConstraint("model", "name"), UniqueConstraint("model", "sha256"))

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    model: Mapped[str] = mapped_column(ForeignKey("models.name"))
    name: Mapped[str] = mapped_column(String(64))
    sha256: Mapped[str] = mapped_column(String(64))
    content: Mapped[bytes] = mapped_column(LargeBinary)
    validation_sha256: Mapped[str | None] = mapped_column(String(64), index=True)
    head_sha256: Mapped[str | None] = mapped_column(String(64), index=True)
    published_at: Mapped[datetime] = mapped_column(UtcDateTime)
    published_by: Mapped[str] = mapped_column(String(200))


class VariantRow(Base):
    """One build of a version; `size` is that of all its files together, in bytes."""

    __tablename__ = "variants"
    __table_args__ = (UniqueConstraint("version_id", "name"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    version_id: Mapped[int] = mapped_column(ForeignKey("versions.id"))
    position: Mapped[int] = mapped_column()
    name: Mapped[str] = mapped_column(String(64))
    runtime: Mapped[str] = mapped_column(String(64))
    runtime_version: Mapped[str] = mapped_column(String(128))
    precision: Mapped[str] = mapped_column(String(32))
    format: Mapped[str] = mapped_column(String(32))
    entrypoint: Mapped[str] = mapped_column(String(240))
    requires: Mapped[dict[str, Any]] = mapped_column(JsonB)
    unsafe_format: Mapped[bool] = mapped_column(default=False)
    size: Mapped[int] = mapped_column(BigInteger)
    files: Mapped[list[VariantFileRow]] = relationship(order_by="VariantFileRow.path")


class VariantFileRow(Base):
    """One file of a variant: the path inside it, and the blob that is its content."""

    __tablename__ = "variant_files"
    __table_args__ = (Index(None, "sha256"),)

    variant_id: Mapped[int] = mapped_column(ForeignKey("variants.id"), primary_key=True)
    path: Mapped[str] = mapped_column(String(240), primary_key=True)
    sha256: Mapped[str] = mapped_column(ForeignKey("blobs.sha256"))
    size: Mapped[int] = mapped_column(BigInteger)
