"""Entries that a person acknowledged."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from pilotwave_server.db import Base, UtcDateTime


class AcknowledgementRow(Base):
    """Somebody saw to an entry. `key` names it as it was then: if it changes or comes again, its
    key is another."""

    __tablename__ = "acknowledgements"

    key: Mapped[str] = mapped_column(String(200), primary_key=True)
    note: Mapped[str] = mapped_column(String(512))
    by: Mapped[str] = mapped_column(String(200))
    at: Mapped[datetime] = mapped_column(UtcDateTime)
