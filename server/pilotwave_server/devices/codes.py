"""One-time codes by which devices join. A code is shown once and kept as its SHA-256."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from pilotwave_server.audit.service import record
from pilotwave_server.devices.errors import BadCode, CodeUnknown, CodeUsed
from pilotwave_server.devices.tables import EnrolmentCodeRow
from pilotwave_server.paging import PageRequest, paginate

# 32 letters and digits that are hard to mistake for one another
ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
PARTS, PART = 4, 5


@dataclass(frozen=True)
class IssuedCode:
    """A new code. `plaintext` exists here only."""

    row: EnrolmentCodeRow
    plaintext: str = field(repr=False)


def make_codes(
    session: Session,
    *,
    count: int,
    labels: Mapping[str, str],
    device: str | None,
    expires_in_s: int,
    actor: str,
    now: datetime,
) -> list[IssuedCode]:
    """Make `count` codes. A device that uses one gets `labels`; `device` binds it to that name."""
    issued = [
        IssuedCode(
            EnrolmentCodeRow(
                code_sha256=_hash(plaintext),
                labels=dict(labels),
                device=device,
                created_by=actor,
                created_at=now,
                expires_at=now + timedelta(seconds=expires_in_s),
            ),
            plaintext,
        )
        for plaintext in (_new_code() for _ in range(count))
    ]
    session.add_all(code.row for code in issued)
    session.flush()
    record(
        session,
        actor=actor,
        verb="enrolment_code.create",
        object="enrolment-codes",
        now=now,
        after={
            "ids": [code.row.id for code in issued],
            "labels": dict(labels),
            "device": device,
            "expires_in_s": expires_in_s,
        },
    )
    return issued


def list_codes(session: Session, *, page: PageRequest) -> tuple[list[EnrolmentCodeRow], str | None]:
    """Every code there ever was, newest first."""
    query = select(EnrolmentCodeRow)
    return paginate(session, query, keys=[EnrolmentCodeRow.id], page=page, descending=True)


def revoke_code(session: Session, *, code_id: int, actor: str, now: datetime) -> None:
    """Take back a code that nobody used; repeating it changes nothing. CodeUnknown, CodeUsed."""
    row = session.get(EnrolmentCodeRow, code_id, with_for_update=True)
    if row is None:
        raise CodeUnknown(f"there is no enrolment code {code_id}")
    if row.used_at is not None:
        raise CodeUsed(f"{row.used_by} has used this code; revoke the device instead")
    if row.revoked_at is None:
        row.revoked_at = now
        record(
            session,
            actor=actor,
            verb="enrolment_code.revoke",
            object=f"enrolment-code/{code_id}",
            now=now,
        )


def use_code(session: Session, *, code: str, device: str, now: datetime) -> EnrolmentCodeRow:
    """Consume a code for `device`, atomically, or raise BadCode."""
    c = EnrolmentCodeRow
    used = session.execute(
        update(c)
        .where(
            c.code_sha256 == _hash(code),
            c.used_at.is_(None),
            c.revoked_at.is_(None),
            c.expires_at > now,
            or_(c.device.is_(None), c.device == device),
        )
        .values(used_at=now, used_by=device)
        .returning(c.id)
        .execution_options(synchronize_session=False)
    ).scalar_one_or_none()
    row = None if used is None else session.get(c, used)
    if row is None:
        raise BadCode("this enrolment code is not valid; ask an operator for a new one")
    return row


def _new_code() -> str:
    letters = [secrets.choice(ALPHABET) for _ in range(PARTS * PART)]
    return "-".join("".join(letters[n : n + PART]) for n in range(0, len(letters), PART))


def _hash(code: str) -> str:
    # 100 random bits cannot be guessed, so a slow hash would protect nothing
    letters = "".join(c for c in code.upper() if c.isalnum())
    return sha256(letters.encode()).hexdigest()
