"""How versions do on devices in use, and on how many devices each runs."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from pilotwave_server.db import Base, BigId, JsonB, UtcDateTime


class DeviceMetricRow(Base):
    """How a version did on a device in use: all observations of one metric so far, merged, of so
    many `windows`; `points` (`course.py`) are how it went."""

    __tablename__ = "device_metrics"

    device_id: Mapped[int] = mapped_column(
        BigId, ForeignKey("devices.id", ondelete="CASCADE"), primary_key=True
    )
    model: Mapped[str] = mapped_column(String(64), primary_key=True)
    version: Mapped[str] = mapped_column(String(64), primary_key=True)
    metric: Mapped[str] = mapped_column(String(64), primary_key=True)
    sketch: Mapped[dict[str, Any]] = mapped_column(JsonB)
    windows: Mapped[int] = mapped_column(BigInteger)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
    points: Mapped[list[list[float]]] = mapped_column(JsonB, server_default="[]")


class VersionCountRow(Base):
    """How many devices ran a version at a tick. `grain_s` says for how long it is kept: 0, an hour
    or a day (`distribution.py`)."""

    __tablename__ = "version_counts"
    __table_args__ = (
        Index(None, "grain_s", "at"),
        Index(None, "model", "grain_s", "at"),
    )

    at: Mapped[datetime] = mapped_column(UtcDateTime, primary_key=True)
    model: Mapped[str] = mapped_column(String(64), primary_key=True)
    version: Mapped[str] = mapped_column(String(64), primary_key=True)
    devices: Mapped[int]
    grain_s: Mapped[int]
