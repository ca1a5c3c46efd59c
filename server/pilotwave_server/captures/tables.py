"""Captured cases, sealed."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, LargeBinary, String, UniqueConstraint
from sqlalchemy.orm import Mapped, deferred, mapped_column

from pilotwave_server.db import Base, BigId, UtcDateTime


class CaseRow(Base):
    """One case. `case_id` is the digest of its sealed bytes, `content` what the device sent: the
    statement that it signed, and the sealed bytes."""

    __tablename__ = "captures"
    __table_args__ = (
        UniqueConstraint("device_id", "case_id"),
        Index("ix_captures_device_id_size", "device_id", "size"),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    device_id: Mapped[int] = mapped_column(BigId, ForeignKey("devices.id", ondelete="CASCADE"))
    device: Mapped[str] = mapped_column(String(64), index=True)
    case_id: Mapped[str] = mapped_column(String(64))
    reader: Mapped[str] = mapped_column(String(64))
    model: Mapped[str] = mapped_column(String(64), index=True)
    version: Mapped[str] = mapped_column(String(64))
    variant: Mapped[str] = mapped_column(String(64))
    reason: Mapped[str] = mapped_column(String(32))
    captured_at: Mapped[datetime] = mapped_column(UtcDateTime)
    received_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    size: Mapped[int] = mapped_column(BigId)
    content: Mapped[bytes] = deferred(mapped_column(LargeBinary, nullable=False))
