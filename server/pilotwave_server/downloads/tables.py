"""What was sent, and what may be sent to a site."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from pilotwave_server.db import Base, BigId, UtcDateTime


class SentRow(Base):
    """Bytes of files sent to one device for one version, since ever.

    `rollout` is the one that offered the version, `site` where the device stood; empty: none.
    `delta_for` is the size of what the deltas' bytes stood for, whose difference to `sent_delta` is
    what deltas saved.
    """

    __tablename__ = "bytes_sent"
    __table_args__ = (Index(None, "model", "version"), Index(None, "rollout"))

    device_id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    model: Mapped[str] = mapped_column(String(64), primary_key=True)
    version: Mapped[str] = mapped_column(String(64), primary_key=True)
    variant: Mapped[str] = mapped_column(String(64), primary_key=True)
    rollout: Mapped[str] = mapped_column(String(64), primary_key=True)
    site: Mapped[str] = mapped_column(String(128), primary_key=True)
    sent_full: Mapped[int] = mapped_column(BigInteger)
    sent_delta: Mapped[int] = mapped_column(BigInteger)
    delta_for: Mapped[int] = mapped_column(BigInteger)


class SiteLimitRow(Base):
    """What operators allow a site. None: no limit. Rates in kilobits per second."""

    __tablename__ = "site_limits"

    site: Mapped[str] = mapped_column(String(128), primary_key=True)
    max_rate_kbps: Mapped[int | None] = mapped_column(BigInteger)
    max_device_rate_kbps: Mapped[int | None] = mapped_column(BigInteger)
    max_downloads: Mapped[int | None]
    set_by: Mapped[str] = mapped_column(String(200))
    set_at: Mapped[datetime] = mapped_column(UtcDateTime)
