"""The record of blobs that are wholly there, of which the store itself has the last word; and, of
those that are still arriving, where the store is a bucket."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, String
from sqlalchemy.orm import Mapped, mapped_column

from pilotwave_server.db import Base, UtcDateTime


class BlobRow(Base):
    """A whole blob: its digest, its size in bytes, since when it is there, and who sent it;
    `removed_at` is since when it is gone, `purged_with` the version (`model version`) whose purge
    took it: then it may not come again."""

    __tablename__ = "blobs"
    __table_args__ = (CheckConstraint("size >= 0", name="size"),)

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    size: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    uploaded_by: Mapped[str | None] = mapped_column(String(128))
    removed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    purged_with: Mapped[str | None] = mapped_column(String(160))


class UploadRow(Base):
    """A blob that arrives in a bucket: how many bytes it has in all, and how many are stored in
    pieces. `holder` is the request that writes, until `held_until`."""

    __tablename__ = "blob_uploads"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    length: Mapped[int] = mapped_column(BigInteger)
    received: Mapped[int] = mapped_column(BigInteger)
    holder: Mapped[str | None] = mapped_column(String(32))
    held_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    touched_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class UploadPieceRow(Base):
    """One object of such a blob: its bytes from `start` on, and the holder that wrote them."""

    __tablename__ = "blob_upload_pieces"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    start: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    size: Mapped[int] = mapped_column(BigInteger)
    holder: Mapped[str] = mapped_column(String(32))
