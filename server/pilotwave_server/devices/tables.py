"""Devices, the codes by which they join, and operators' words for single devices."""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Integer, String, text
from sqlalchemy.orm import Mapped, mapped_column

from pilotwave_server.db import Base, BigId, JsonB, UtcDateTime

PRIME = 2**31 - 1


# No parameters in these: an index over a part is used only where the query has the very same words.
# And no `state =`: SQLite would take the index over the state, which is of the whole fleet.
_IN_SERVICE = "state NOT IN ('pending', 'revoked', 'decommissioned')"
AWAITED = f"{_IN_SERVICE} AND silent_since IS NULL"
MISSED = f"{_IN_SERVICE} AND silent_since IS NOT NULL"


def draw_bucket() -> int:
    """Draw a new device's bucket, from 0 to 2^31 - 2.

    A hash of the name would let somebody choose many names with one bucket, which every wave then
    takes or leaves together.
    """
    return secrets.randbelow(PRIME)


class DeviceRow(Base):
    """One device. Of its key the server holds the public half only.

    `generation` rises with each revocation and kills the tokens given out before; `revision` is
    the fleet's counter at the last change that may alter this device's set. `bucket` is
    drawn by chance when it enrols (`draw_bucket`); rollouts choose devices by it.

    `last_seq` is that of its last check-in, `acked_event` the number of its last stored event,
    `acked_window` that of its last stored window of metrics, all under the name `numbering` by
    which it counts (empty: its agent knows of none). `plain_seq` is the highest number without a
    name. `event_run` rises each time its events count anew, `top_event` is the highest number that
    any of them had.

    `check_in_s` is how often it checks in, as it was told when it enrolled or with its last
    check-in, and within its agent's own settings (`intervals`; null: it was told before this was
    noted). `silent_since` is since when it is reported silent (`device.silent`;
    null: it is not, or is not in service).

    `boots` are the names of its agent's last starts. `conflict_at` is when one of them last came
    back, which only two machines with one key bring about; `conflict_since` is since when that is
    so (null: it is not, or not any more).

    `diagnostics_wish` is the id of the open wish for diagnostics and the reader's key.
    """

    __tablename__ = "devices"
    __table_args__ = (
        CheckConstraint(
            "state IN ('pending', 'enrolled', 'revoked', 'decommissioned')", name="state"
        ),
        Index(None, "state", "name"),
        Index(None, "last_seen", "id"),
        Index(None, "agent", "name"),
        *(
            Index(
                name,
                "check_in_s",
                "last_seen",
                sqlite_where=text(where),
                postgresql_where=text(where),
            )
            for name, where in (("ix_devices_awaited", AWAITED), ("ix_devices_missed", MISSED))
        ),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    bucket: Mapped[int] = mapped_column(BigInteger, default=draw_bucket)
    public_key: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(16))
    generation: Mapped[int] = mapped_column(default=1)
    revision: Mapped[int] = mapped_column(BigInteger, index=True)
    labels: Mapped[dict[str, Any]] = mapped_column(JsonB, default=dict)
    facts: Mapped[dict[str, Any]] = mapped_column(JsonB, default=dict)
    attempts: Mapped[dict[str, Any]] = mapped_column(JsonB, default=dict)
    last_seq: Mapped[int] = mapped_column(BigInteger, default=0)
    acked_event: Mapped[int] = mapped_column(BigInteger, default=0)
    acked_window: Mapped[int] = mapped_column(BigInteger, default=0)
    numbering: Mapped[str] = mapped_column(String(64), default="", server_default="")
    plain_seq: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    event_run: Mapped[int] = mapped_column(default=0, server_default="0")
    top_event: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    boots: Mapped[list[str]] = mapped_column(JsonB, default=list, server_default="[]")
    conflict_since: Mapped[datetime | None] = mapped_column(UtcDateTime, index=True)
    conflict_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    dropped_events: Mapped[int] = mapped_column(BigInteger, default=0)
    directive_seq: Mapped[int] = mapped_column(BigInteger, default=0)
    agent: Mapped[str] = mapped_column(String(64), default="")
    tuf_root: Mapped[int] = mapped_column(BigInteger, default=0)
    tuf_timestamp: Mapped[int] = mapped_column(BigInteger, default=0)
    tuf_snapshot: Mapped[int] = mapped_column(BigInteger, default=0)
    refusal: Mapped[dict[str, Any] | None] = mapped_column(JsonB)
    # since when it refuses its orders for this reason
    refused_since: Mapped[datetime | None] = mapped_column(UtcDateTime, index=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    # the address that an enrolment without a code came from
    asked_from: Mapped[str | None] = mapped_column(String(64))
    enrolled_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_seen: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_check_in: Mapped[datetime | None] = mapped_column(UtcDateTime)
    check_in_s: Mapped[int | None] = mapped_column()
    silent_since: Mapped[datetime | None] = mapped_column(UtcDateTime)
    diagnostics_wish: Mapped[str | None] = mapped_column(String(100))


class SilenceWatchRow(Base):
    """The one row that says when the fleet was last looked at for silent devices, and between when
    and when it last was not, for longer than between two looks."""

    __tablename__ = "silence_watch"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False, default=1)
    looked_at: Mapped[datetime] = mapped_column(UtcDateTime)
    away_from: Mapped[datetime] = mapped_column(UtcDateTime)
    away_until: Mapped[datetime] = mapped_column(UtcDateTime)


class PinRow(Base):
    """An operator's word: this device runs this version of this model, whatever its groups say."""

    __tablename__ = "pins"

    device_id: Mapped[int] = mapped_column(
        BigId, ForeignKey("devices.id", ondelete="CASCADE"), primary_key=True
    )
    model: Mapped[str] = mapped_column(String(64), primary_key=True)
    version: Mapped[str] = mapped_column(String(64))
    reason: Mapped[str] = mapped_column(String(512))
    set_by: Mapped[str] = mapped_column(String(200))
    set_at: Mapped[datetime] = mapped_column(UtcDateTime)


class EnrolmentCodeRow(Base):
    """A one-time code. The code itself is nowhere: only its SHA-256."""

    __tablename__ = "enrolment_codes"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    code_sha256: Mapped[str] = mapped_column(String(64), unique=True)
    labels: Mapped[dict[str, Any]] = mapped_column(JsonB, default=dict)
    device: Mapped[str | None] = mapped_column(String(64))
    created_by: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)
    used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    used_by: Mapped[str | None] = mapped_column(String(64))
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class GroupMemberRow(Base):
    """A device in a static group."""

    __tablename__ = "group_members"

    group_id: Mapped[int] = mapped_column(
        BigId, ForeignKey("groups.id", ondelete="CASCADE"), primary_key=True
    )
    device_id: Mapped[int] = mapped_column(
        BigId, ForeignKey("devices.id", ondelete="CASCADE"), primary_key=True, index=True
    )
    added_at: Mapped[datetime] = mapped_column(UtcDateTime)
