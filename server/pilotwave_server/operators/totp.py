"""A second factor: time-based one-time passwords (RFC 6238), by pyotp. A code works once."""

from __future__ import annotations

import hmac
from datetime import datetime
from typing import ClassVar

import pyotp
from sqlalchemy import update
from sqlalchemy.orm import Session

from pilotwave_server.audit.service import record
from pilotwave_server.errors import Invalid
from pilotwave_server.operators.tables import PersonRow

STEP_S = 30
SKEW = 1


class WrongCode(Invalid):
    code: ClassVar[str] = "wrong_code"


def new_secret() -> str:
    return pyotp.random_base32()


def uri(secret: str, *, name: str, fleet: str) -> str:
    """The `otpauth://` URI that authenticator apps read from a QR code."""
    return pyotp.TOTP(secret).provisioning_uri(name=name, issuer_name=f"Pilotwave {fleet}")


def matching_step(secret: str, code: str, *, now: datetime) -> int | None:
    """The time step that `code` is of, one step early or late allowed; None: none of them."""
    given = "".join(code.split())
    totp = pyotp.TOTP(secret, interval=STEP_S)
    step = int(now.timestamp()) // STEP_S
    for candidate in range(step - SKEW, step + SKEW + 1):
        if hmac.compare_digest(totp.generate_otp(candidate).encode(), given.encode()):
            return candidate
    return None


def use_code(session: Session, row: PersonRow, code: str, *, now: datetime) -> bool:
    """Whether the code is right and was not used before; it is used now."""
    if row.totp_secret is None:
        return False
    step = matching_step(row.totp_secret, code, now=now)
    if step is None:
        return False
    # compare and set: of two requests with one code, one wins
    used = session.execute(
        update(PersonRow)
        .where(PersonRow.id == row.id, PersonRow.totp_step < step)
        .values(totp_step=step)
        .returning(PersonRow.id),
        execution_options={"synchronize_session": False},
    )
    return used.scalar_one_or_none() is not None


def enrol(session: Session, row: PersonRow, secret: str, code: str, *, now: datetime) -> None:
    """Ask the person for codes of this secret from now on. WrongCode."""
    step = matching_step(secret, code, now=now)
    if step is None:
        raise WrongCode("the code does not fit; check the clock of the device that makes it")
    row.totp_secret, row.totp_step = secret, step
    who = f"person/{row.name}"
    record(session, actor=who, verb="person.totp_on", object=who, now=now)


def remove(session: Session, row: PersonRow, *, actor: str, now: datetime) -> None:
    """Ask for no codes any more."""
    if row.totp_secret is not None:
        row.totp_secret = None
        record(session, actor=actor, verb="person.totp_off", object=f"person/{row.name}", now=now)
