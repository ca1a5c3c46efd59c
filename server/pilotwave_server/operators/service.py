"""Making, listing and revoking operator tokens. Checking one is `authenticate.py`."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from pilotwave_server.audit.service import record
from pilotwave_server.errors import Conflict, Forbidden, Invalid, NotFound
from pilotwave_server.operators.roles import Actor, Role
from pilotwave_server.operators.tables import OperatorTokenRow
from pilotwave_server.paging import PageRequest, paginate

ID_BYTES = 5
SECRET_BYTES = 32


class RoleForbids(Forbidden):
    code = "role_forbids"


class TokenNotFound(NotFound):
    code = "token_not_found"


class TokenNameTaken(Conflict):
    code = "token_name_taken"


class LastAdmin(Conflict):
    """The last admin token that works stays, or nobody could make another over the API."""

    code = "last_admin"


class ExpiryPassed(Invalid):
    code = "expiry_passed"


class ScopeTooWide(Invalid):
    """Admins make other tokens, so a limit would be none."""

    code = "scope_too_wide"


@dataclass(frozen=True)
class IssuedToken:
    """A new token. `plaintext` exists here only and is shown once."""

    row: OperatorTokenRow
    plaintext: str = field(repr=False)


def check_role(actor: Actor, needed: Role) -> None:
    """RoleForbids unless the actor's role covers the one that is needed."""
    if not actor.role.covers(needed):
        raise RoleForbids(
            f"this needs the role {needed.value}; {actor} is {actor.role.value}",
            needed=needed.value,
        )


def hash_secret(secret: str) -> str:
    # 256 random bits cannot be guessed, so a slow hash would protect nothing.
    return sha256(secret.encode()).hexdigest()


def issue(
    session: Session,
    *,
    name: str,
    role: Role,
    actor: str,
    now: datetime,
    expires_at: datetime | None = None,
    models: list[str] | None = None,
    groups: list[str] | None = None,
) -> IssuedToken:
    """A new token called `name`, that may change these models and groups alone (None: any).

    TokenNameTaken, ExpiryPassed, ScopeTooWide.
    """
    if role is Role.ADMIN and (models is not None or groups is not None):
        raise ScopeTooWide("a token of the role admin cannot be limited: choose another role")
    if expires_at is not None and expires_at <= now:
        raise ExpiryPassed("expires_at: expected a time to come")
    taken = select(OperatorTokenRow.id).where(OperatorTokenRow.name == name)
    if session.scalar(taken) is not None:
        raise TokenNameTaken(f"there is (or was) a token called {name}; choose another name")
    secret = secrets.token_hex(SECRET_BYTES)
    limits = {"models": models, "groups": groups}
    row = OperatorTokenRow(
        id=secrets.token_hex(ID_BYTES),
        name=name,
        role=role.value,
        secret_sha256=hash_secret(secret),
        created_at=now,
        created_by=actor,
        expires_at=expires_at,
        **limits,
    )
    session.add(row)
    record(
        session,
        actor=actor,
        verb="token.create",
        object=f"token/{name}",
        after={
            "role": role.value,
            "expires_at": expires_at and expires_at.isoformat(),
            **{key: value for key, value in limits.items() if value is not None},
        },
        now=now,
    )
    return IssuedToken(row, f"pw_{row.id}_{secret}")


def list_tokens(
    session: Session, *, page: PageRequest
) -> tuple[list[OperatorTokenRow], str | None]:
    """Every token there ever was, by id."""
    return paginate(session, select(OperatorTokenRow), keys=[OperatorTokenRow.id], page=page)


def revoke(session: Session, *, token_id: str, actor: str, now: datetime) -> None:
    """End a token for good; repeating it changes nothing. TokenNotFound, LastAdmin."""
    row = session.get(OperatorTokenRow, token_id, with_for_update=True)
    if row is None:
        raise TokenNotFound(f"there is no token with the id {token_id}")
    if row.revoked_at is not None:
        return
    if row.role == Role.ADMIN.value and not _other_admin(session, token_id=token_id, now=now):
        raise LastAdmin("this is the last admin token that works; make another one first")
    row.revoked_at = now
    record(
        session,
        actor=actor,
        verb="token.revoke",
        object=f"token/{row.name}",
        before={"role": row.role},
        now=now,
    )


def _other_admin(session: Session, *, token_id: str, now: datetime) -> bool:
    others = select(func.count()).where(
        OperatorTokenRow.id != token_id,
        OperatorTokenRow.role == Role.ADMIN.value,
        OperatorTokenRow.revoked_at.is_(None),
        or_(OperatorTokenRow.expires_at.is_(None), OperatorTokenRow.expires_at > now),
    )
    return bool(session.scalar(others))
