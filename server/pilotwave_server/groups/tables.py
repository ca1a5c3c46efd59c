"""Groups. The members of the static ones are `devices/tables.py`'s."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from pilotwave_server.db import Base, BigId, UtcDateTime


class GroupRow(Base):
    """A named set of devices: by list (`selector` is null) or by selector."""

    __tablename__ = "groups"
    __table_args__ = (
        CheckConstraint("(kind = 'selector') = (selector IS NOT NULL)", name="kind_has_selector"),
        CheckConstraint("kind IN ('static', 'selector')", name="kind"),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    kind: Mapped[str] = mapped_column(String(16))
    selector: Mapped[str | None] = mapped_column(Text)
    description: Mapped[str] = mapped_column(String(512), default="")
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
