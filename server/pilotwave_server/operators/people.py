"""People who work with the fleet: making, changing and ending their accounts.

A new person, and one who lost the password, gets a link that works once. Checking who asks is
`sessions.py`.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import ClassVar

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from pilotwave_server.audit.service import record
from pilotwave_server.errors import Conflict, Forbidden, NotFound
from pilotwave_server.operators.passwords import check_quality, hash_password
from pilotwave_server.operators.roles import Role
from pilotwave_server.operators.service import hash_secret
from pilotwave_server.operators.tables import LoginLinkRow, PersonRow, PersonSessionRow
from pilotwave_server.paging import PageRequest, paginate

LINK_LIFE = timedelta(days=2)
SECRET_BYTES = 32


class PersonUnknown(NotFound):
    code: ClassVar[str] = "person_unknown"


class PersonNameTaken(Conflict):
    code: ClassVar[str] = "person_name_taken"


class LastAdminPerson(Conflict):
    """The last admin who can sign in stays one."""

    code: ClassVar[str] = "last_admin_person"


class LinkUnknown(Forbidden):
    """The login link was used, has expired or never was: one answer for all three."""

    code: ClassVar[str] = "link_unknown"


@dataclass(frozen=True)
class LoginLink:
    """A secret that lets a person in once. `plaintext` exists here only."""

    plaintext: str = field(repr=False)
    expires_at: datetime


def create_person(
    session: Session, *, name: str, role: Role, actor: str, now: datetime
) -> PersonRow:
    """A person without a password yet. PersonNameTaken."""
    if session.scalar(select(PersonRow.id).where(PersonRow.name == name)) is not None:
        raise PersonNameTaken(f"there is (or was) a person called {name}; choose another name")
    row = PersonRow(name=name, role=role.value, created_at=now, created_by=actor)
    session.add(row)
    session.flush()
    _note(session, row, "person.create", actor, now, after={"role": role.value})
    return row


def list_people(session: Session, *, page: PageRequest) -> tuple[list[PersonRow], str | None]:
    """Everybody there ever was, by name."""
    return paginate(session, select(PersonRow), keys=[PersonRow.name], page=page)


def get_person(session: Session, name: str, *, lock: bool = False) -> PersonRow:
    """The person of that name, or PersonUnknown."""
    query = select(PersonRow).where(PersonRow.name == name)
    row = session.scalars(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise PersonUnknown(f"there is no person called {name}")
    return row


def set_role(session: Session, *, name: str, role: Role, actor: str, now: datetime) -> PersonRow:
    """Give a person another role; it counts from the next request on. LastAdminPerson."""
    row = get_person(session, name, lock=True)
    if row.role == role.value:
        return row
    _keep_an_admin(session, row)
    before, row.role = row.role, role.value
    _note(session, row, "person.role", actor, now, {"role": before}, {"role": row.role})
    return row


def disable(session: Session, *, name: str, actor: str, now: datetime) -> PersonRow:
    """Let a person in no more; sessions end at once. LastAdminPerson."""
    row = get_person(session, name, lock=True)
    if row.disabled_at is None:
        _keep_an_admin(session, row)
        row.disabled_at = now
        end_sessions(session, row)
        session.execute(delete(LoginLinkRow).where(LoginLinkRow.person_id == row.id))
        _note(session, row, "person.disable", actor, now)
    return row


def enable(session: Session, *, name: str, actor: str, now: datetime) -> PersonRow:
    """Let a disabled person in again, with the password of before."""
    row = get_person(session, name, lock=True)
    if row.disabled_at is not None:
        row.disabled_at = None
        _note(session, row, "person.enable", actor, now)
    return row


def set_password(
    session: Session, row: PersonRow, password: str, *, actor: str, now: datetime
) -> None:
    """Set a new password and end every session. WeakPassword."""
    check_quality(password, name=row.name)
    row.password_hash = hash_password(password)
    end_sessions(session, row)
    _note(session, row, "person.password", actor, now)


def make_link(session: Session, row: PersonRow, *, actor: str, now: datetime) -> LoginLink:
    """A link that lets the person in once, to set a password. It replaces an older one."""
    secret = secrets.token_urlsafe(SECRET_BYTES)
    session.execute(delete(LoginLinkRow).where(LoginLinkRow.person_id == row.id))
    expires = now + LINK_LIFE
    session.add(
        LoginLinkRow(secret_sha256=hash_secret(secret), person_id=row.id, expires_at=expires)
    )
    _note(session, row, "person.link", actor, now)
    return LoginLink(secret, expires)


def use_link(session: Session, secret: str, *, now: datetime) -> PersonRow:
    """The person whose link it is; it works this once. LinkUnknown."""
    used = session.execute(
        delete(LoginLinkRow)
        .where(LoginLinkRow.secret_sha256 == hash_secret(secret), LoginLinkRow.expires_at > now)
        .returning(LoginLinkRow.person_id)
    ).scalar_one_or_none()
    row = None if used is None else session.get(PersonRow, used)
    if row is None or row.disabled_at is not None:
        raise LinkUnknown("this login link was used, has expired or never was: ask for a new one")
    _note(session, row, "person.link_used", f"person/{row.name}", now)
    return row


def end_sessions(session: Session, row: PersonRow) -> None:
    """End all sessions of a person."""
    session.execute(delete(PersonSessionRow).where(PersonSessionRow.person_id == row.id))


def note_login(session: Session, row: PersonRow, *, how: str, now: datetime) -> None:
    """Write down that somebody came in, and how."""
    session.execute(update(PersonRow).where(PersonRow.id == row.id).values(last_login_at=now))
    _note(session, row, "person.login", f"person/{row.name}", now, after={"by": how})


def _keep_an_admin(session: Session, row: PersonRow) -> None:
    if row.role != Role.ADMIN.value or row.disabled_at is not None:
        return
    others = select(func.count()).where(
        PersonRow.id != row.id, PersonRow.role == Role.ADMIN.value, PersonRow.disabled_at.is_(None)
    )
    if not session.scalar(others):
        raise LastAdminPerson(f"{row.name} is the last admin; make somebody else one first")


def _note(
    session: Session,
    row: PersonRow,
    verb: str,
    actor: str,
    now: datetime,
    before: dict[str, str] | None = None,
    after: dict[str, str] | None = None,
) -> None:
    record(
        session,
        actor=actor,
        verb=verb,
        object=f"person/{row.name}",
        now=now,
        before=before,
        after=after,
    )
