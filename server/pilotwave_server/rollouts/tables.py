"""What groups are to run, and what they may not be offered."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from pilotwave_server.db import Base, BigId, UtcDateTime


class BaselineRow(Base):
    """A version that a group was told to run. The one of the highest revision counts.

    The older ones stay as what to fall back on if the newest may no longer be offered; `ended_at`
    takes one out of that line: the operator went back behind it, or removed the baseline.
    """

    __tablename__ = "baselines"
    __table_args__ = (Index(None, "ended_at", "model"), Index(None, "group_id", "model"))

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    group_id: Mapped[int] = mapped_column(BigId, ForeignKey("groups.id", ondelete="CASCADE"))
    model: Mapped[str] = mapped_column(String(64))
    version: Mapped[str] = mapped_column(String(64))
    counter: Mapped[int] = mapped_column(BigInteger)
    revision: Mapped[int] = mapped_column(BigInteger)
    set_by: Mapped[str] = mapped_column(String(200))
    set_at: Mapped[datetime] = mapped_column(UtcDateTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class QuarantineRow(Base):
    """A version that a group (null: the whole fleet) may not be offered, and why."""

    __tablename__ = "quarantines"
    __table_args__ = (UniqueConstraint("group_id", "model", "version"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    group_id: Mapped[int | None] = mapped_column(BigId, ForeignKey("groups.id", ondelete="CASCADE"))
    model: Mapped[str] = mapped_column(String(64))
    version: Mapped[str] = mapped_column(String(64))
    reason: Mapped[str] = mapped_column(String(512))
    set_by: Mapped[str] = mapped_column(String(200))
    set_at: Mapped[datetime] = mapped_column(UtcDateTime)
