"""Groups of devices in masked rounds, and what their members sent."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, LargeBinary, String, UniqueConstraint
from sqlalchemy.orm import Mapped, deferred, mapped_column

from pilotwave_server.db import Base, BigId, UtcDateTime


class GroupRow(Base):
    """One group. `phase` is one of `phases.Phase`, which ends at `ends_at`; `detail` says why it is
    lost. `devices` and `examples` are those of its sum. `content`, the sum as the numbers of an
    update, is there while the round is open; `gain` says by how much the result was better without
    it, where it was left out."""

    __tablename__ = "learning_masked_groups"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    round_id: Mapped[int] = mapped_column(
        BigId, ForeignKey("learning_rounds.id", ondelete="CASCADE"), index=True
    )
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    phase: Mapped[str] = mapped_column(String(16), index=True)
    ends_at: Mapped[datetime] = mapped_column(UtcDateTime)
    devices: Mapped[int] = mapped_column(default=0)
    examples: Mapped[int] = mapped_column(default=0)
    detail: Mapped[str | None] = mapped_column(String(512))
    gain: Mapped[float | None] = mapped_column()
    content: Mapped[bytes | None] = deferred(mapped_column(LargeBinary))


class MemberRow(Base):
    """A device that sent keys: of one group, or of none yet. `sent` is one of `phases.Sent`.
    `shares`, `numbers` (masked) and `answer` are there while its group goes on."""

    __tablename__ = "learning_masked_members"
    __table_args__ = (UniqueConstraint("round_id", "device_id", "attempt"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    round_id: Mapped[int] = mapped_column(
        BigId, ForeignKey("learning_rounds.id", ondelete="CASCADE")
    )
    group_id: Mapped[int | None] = mapped_column(
        BigId, ForeignKey("learning_masked_groups.id", ondelete="CASCADE"), index=True
    )
    device_id: Mapped[int] = mapped_column(BigId, ForeignKey("devices.id", ondelete="CASCADE"))
    device: Mapped[str] = mapped_column(String(64))
    attempt: Mapped[int]
    sent: Mapped[str] = mapped_column(String(16))
    received_at: Mapped[datetime] = mapped_column(UtcDateTime)
    keys: Mapped[bytes] = mapped_column(LargeBinary)
    shares: Mapped[bytes | None] = deferred(mapped_column(LargeBinary))
    numbers: Mapped[bytes | None] = deferred(mapped_column(LargeBinary))
    answer: Mapped[bytes | None] = deferred(mapped_column(LargeBinary))
