"""The table of server processes that are or were lately running."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from pilotwave_server.db import Base, UtcDateTime


class ServerProcessRow(Base):
    """One process. `seen_at` is by the database's clock; the other times are by its own: since when
    it has listened to devices without a gap, and when it last heard one. `blob_store` is the
    identity of its store, None as long as it has not reached it. `knows` are the words of
    `living.KNOWS`; None in the row of a release from before there were any."""

    __tablename__ = "server_processes"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    host: Mapped[str] = mapped_column(String(64))
    seen_at: Mapped[datetime] = mapped_column(UtcDateTime)
    listening_since: Mapped[datetime] = mapped_column(UtcDateTime)
    heard_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    blob_store: Mapped[str | None] = mapped_column(String(512))
    knows: Mapped[str | None] = mapped_column(String(256))
