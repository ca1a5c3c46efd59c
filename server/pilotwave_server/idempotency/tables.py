"""Requests that came with an `Idempotency-Key`, for a day."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import String, Text
from sqlalchemy.orm import Mapped, mapped_column

from pilotwave_server.db import Base, UtcDateTime


class IdempotencyRow(Base):
    """A request that came with an `Idempotency-Key`. `name` is a hash of its token and key,
    `fingerprint` one of the request; `answer` is sealed with the key (null: none yet)."""

    __tablename__ = "idempotency_keys"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    begun_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    answer: Mapped[str | None] = mapped_column(Text)
