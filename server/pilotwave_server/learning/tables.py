"""Experiments with training plans, their rounds, and what devices sent in them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, LargeBinary, String, UniqueConstraint
from sqlalchemy.orm import Mapped, deferred, mapped_column

from pilotwave_server.db import Base, BigId, JsonB, UtcDateTime


class ExperimentRow(Base):
    """A plan's way through a group.

    `state` is one of `states.ExperimentState`, `detail` the sentence for people. `policy` is the
    policy as it was at the start; `wave`, `threshold` and the salt (`multiplier`, `offset`) say
    which devices may take part, as a rollout's do; `wave_devices` how many those were when the last
    wave opened.
    """

    __tablename__ = "learning_experiments"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    plan_id: Mapped[int] = mapped_column(BigId, ForeignKey("plans.id"), index=True)
    model: Mapped[str] = mapped_column(String(64), index=True)
    plan: Mapped[str] = mapped_column(String(64))
    plan_sha256: Mapped[str] = mapped_column(String(64), index=True)
    group_id: Mapped[int | None] = mapped_column(
        BigId, ForeignKey("groups.id", ondelete="SET NULL")
    )
    group: Mapped[str] = mapped_column(String(64))
    policy: Mapped[dict[str, Any]] = mapped_column(JsonB)
    multiplier: Mapped[int] = mapped_column(BigInteger)
    offset: Mapped[int] = mapped_column(BigInteger)
    wave: Mapped[int] = mapped_column(default=0)
    threshold: Mapped[int] = mapped_column(BigInteger)
    wave_devices: Mapped[int] = mapped_column(default=0)
    wave_opened_at: Mapped[datetime] = mapped_column(UtcDateTime)
    state: Mapped[str] = mapped_column(String(16), index=True)
    opened_at: Mapped[datetime] = mapped_column(UtcDateTime)
    opened_by: Mapped[str] = mapped_column(String(200))
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    ended_by: Mapped[str | None] = mapped_column(String(200))
    detail: Mapped[str | None] = mapped_column(String(512))


class RoundRow(Base):
    """One round of an experiment, counted from 1. `state` is open, closing, done or failed; `head`
    the result of one that is done, as numbers travel; `figures` what is told of it. `devices`,
    `examples` and `size` (in bytes) are those of its updates together."""

    __tablename__ = "learning_rounds"
    __table_args__ = (UniqueConstraint("experiment_id", "number"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    experiment_id: Mapped[int] = mapped_column(
        BigId, ForeignKey("learning_experiments.id", ondelete="CASCADE")
    )
    number: Mapped[int]
    state: Mapped[str] = mapped_column(String(16), index=True)
    opened_at: Mapped[datetime] = mapped_column(UtcDateTime)
    ends_at: Mapped[datetime] = mapped_column(UtcDateTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    devices: Mapped[int] = mapped_column(default=0)
    examples: Mapped[int] = mapped_column(default=0)
    size: Mapped[int] = mapped_column(BigId, default=0)
    figures: Mapped[dict[str, Any] | None] = mapped_column(JsonB)
    head: Mapped[bytes | None] = deferred(mapped_column(LargeBinary))


class AskedRow(Base):
    """A device that was asked to take part in a round. `state` is asked, answered, declined or
    failed; `reason` why it did not, in one word, `examples` about how many it had where they were
    too few."""

    __tablename__ = "learning_devices"
    __table_args__ = (Index(None, "round_id", "state", "asked_at"),)

    round_id: Mapped[int] = mapped_column(
        BigId, ForeignKey("learning_rounds.id", ondelete="CASCADE"), primary_key=True
    )
    device_id: Mapped[int] = mapped_column(
        BigId, ForeignKey("devices.id", ondelete="CASCADE"), primary_key=True
    )
    device: Mapped[str] = mapped_column(String(64))
    wave: Mapped[int]
    state: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(String(32))
    examples: Mapped[int | None]
    asked_at: Mapped[datetime] = mapped_column(UtcDateTime)
    changed_at: Mapped[datetime] = mapped_column(UtcDateTime)


class UpdateRow(Base):
    """A device's update. `content`, its numbers, is there while the round is open, and never after;
    `gain` says by how much the result was better without it, where it was left out."""

    __tablename__ = "learning_updates"
    __table_args__ = (UniqueConstraint("round_id", "device_id"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    round_id: Mapped[int] = mapped_column(
        BigId, ForeignKey("learning_rounds.id", ondelete="CASCADE")
    )
    device_id: Mapped[int] = mapped_column(BigId, ForeignKey("devices.id", ondelete="CASCADE"))
    device: Mapped[str] = mapped_column(String(64))
    examples: Mapped[int] = mapped_column()
    sha256: Mapped[str] = mapped_column(String(64))
    size: Mapped[int] = mapped_column(BigId)
    received_at: Mapped[datetime] = mapped_column(UtcDateTime)
    gain: Mapped[float | None] = mapped_column()
    content: Mapped[bytes | None] = deferred(mapped_column(LargeBinary))


class UpdateUploadRow(Base):
    """An update that arrives in pieces: of `size` bytes of numbers, whose digest is `sha256`,
    `received` are there. `envelope` is what the device signed of them. A device has one."""

    __tablename__ = "learning_uploads"

    device_id: Mapped[int] = mapped_column(
        BigId, ForeignKey("devices.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    round_id: Mapped[int] = mapped_column(
        BigId, ForeignKey("learning_rounds.id", ondelete="CASCADE"), index=True
    )
    sha256: Mapped[str] = mapped_column(String(64))
    size: Mapped[int] = mapped_column(BigId)
    received: Mapped[int] = mapped_column(BigId)
    touched_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    envelope: Mapped[bytes] = mapped_column(LargeBinary)


class UpdatePieceRow(Base):
    """The bytes of such an update from `start` on."""

    __tablename__ = "learning_upload_pieces"

    device_id: Mapped[int] = mapped_column(
        BigId,
        ForeignKey("learning_uploads.device_id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    )
    start: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    content: Mapped[bytes] = mapped_column(LargeBinary)
