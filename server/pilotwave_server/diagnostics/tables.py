"""Wishes for diagnostics and the sealed answers."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, LargeBinary, String
from sqlalchemy.orm import Mapped, deferred, mapped_column

from pilotwave_server.db import Base, BigId, UtcDateTime


class DiagnosticsRow(Base):
    """One wish. `reader` is whose key opens the answer, `envelope` the device's signed answer;
    `devices.diagnostics_wish` names the one that is open."""

    __tablename__ = "diagnostics"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    device_id: Mapped[int] = mapped_column(
        BigId, ForeignKey("devices.id", ondelete="CASCADE"), index=True
    )
    reader: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(16))
    detail: Mapped[str | None] = mapped_column(String(512))
    asked_by: Mapped[str] = mapped_column(String(200))
    asked_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    answered_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    envelope: Mapped[bytes | None] = deferred(mapped_column(LargeBinary))
