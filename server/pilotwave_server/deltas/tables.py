"""The pairs of blobs that want a delta: at once the list of jobs and the record of what came."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from pilotwave_server.db import Base, UtcDateTime


class DeltaRow(Base):
    """A pair of blobs, and how far its delta is.

    `generation` rises each time a worker takes the pair in hand, until `held_until`; whoever
    finishes must still have the generation that it took. `delta_sha256` is the blob that holds the
    delta of a ready pair; `size` is its size, also where it was too large to be of use. `needed_at`
    is when the fleet last needed the pair, to the hour.
    """

    __tablename__ = "deltas"
    __table_args__ = (
        CheckConstraint("state IN ('waiting', 'ready', 'useless', 'failed')", name="state"),
        Index(None, "state", "created_at"),
    )

    from_sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    to_sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    model: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(16), default="waiting")
    full_size: Mapped[int] = mapped_column(BigInteger)
    size: Mapped[int | None] = mapped_column(BigInteger)
    delta_sha256: Mapped[str | None] = mapped_column(String(64))
    detail: Mapped[str | None] = mapped_column(String(512))
    generation: Mapped[int] = mapped_column(default=0)
    held_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    needed_at: Mapped[datetime] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
