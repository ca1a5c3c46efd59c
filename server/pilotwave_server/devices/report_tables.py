"""What devices say of their models: the present state of each, and what happened so far."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from pilotwave_server.db import Base, BigId, UtcDateTime


class DeviceModelRow(Base):
    """One model on one device, as last reported. `since` is when the state began."""

    __tablename__ = "device_models"
    __table_args__ = (
        Index(None, "candidate_version", "model"),
        Index(None, "model", "current_version"),
        Index(None, "state", "device_id"),
    )

    device_id: Mapped[int] = mapped_column(
        BigId, ForeignKey("devices.id", ondelete="CASCADE"), primary_key=True
    )
    model: Mapped[str] = mapped_column(String(64), primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    current_version: Mapped[str | None] = mapped_column(String(64))
    current_sha256: Mapped[str | None] = mapped_column(String(64))
    current_variant: Mapped[str | None] = mapped_column(String(64))
    previous_version: Mapped[str | None] = mapped_column(String(64))
    candidate_version: Mapped[str | None] = mapped_column(String(64))
    progress: Mapped[int | None]
    reason: Mapped[str | None] = mapped_column(String(64))
    detail: Mapped[str | None] = mapped_column(String(512))
    since: Mapped[datetime] = mapped_column(UtcDateTime)


class DeviceHistoryRow(Base):
    """A version became something on a device: switched, healthy, failed or rolled_back; or its
    inputs drifted, which `detail` says more of.

    A number is never given twice, even after its device was deleted: who follows events goes by it.
    """

    __tablename__ = "device_history"
    __table_args__ = (
        Index(None, "device_id", "model", "id"),
        Index(None, "model", "version", "became"),
        Index(None, "became", "at"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    device_id: Mapped[int] = mapped_column(BigId, ForeignKey("devices.id", ondelete="CASCADE"))
    model: Mapped[str] = mapped_column(String(64))
    version: Mapped[str] = mapped_column(String(64))
    became: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(String(64))
    detail: Mapped[str | None] = mapped_column(String(512))
    at: Mapped[datetime] = mapped_column(UtcDateTime)


class DeviceEventRow(Base):
    """Something that happened on a device. `at` is by the device's clock, `received_at` by ours.

    A device counts its events, and may have to count anew. `generation` tells its counts apart: the
    sum of the device's generation and `event_run`, both of which only rise.
    """

    __tablename__ = "device_events"
    __table_args__ = (UniqueConstraint("device_id", "generation", "number"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    device_id: Mapped[int] = mapped_column(BigId, ForeignKey("devices.id", ondelete="CASCADE"))
    generation: Mapped[int]
    number: Mapped[int] = mapped_column(BigInteger)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    received_at: Mapped[datetime] = mapped_column(UtcDateTime)
    kind: Mapped[str] = mapped_column(String(32))
    model: Mapped[str | None] = mapped_column(String(64))
    version: Mapped[str | None] = mapped_column(String(64))
    reason: Mapped[str | None] = mapped_column(String(64))
    detail: Mapped[str | None] = mapped_column(String(512))
