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
from pilotwave_server.errors import Conflict, Forbidden, Invalid, NotFound
from pilotwave_server.operators.passwords import check_quality, hash_password
from pilotwave_server.operators.roles import Role
from pilotwave_server.operators.service import hash_secret
from pilotwave_server.operators.tables import LoginLinkRow, PersonRow, PersonSessionRow
from pilotwave_server.paging import PageRequest, paginate

LINK_LIFE = timedelta(days=2)
SECRET_BYTES = 32
MAX_SUBJECT = 255
MAX_ISSUER = 300


class PersonUnknown(NotFound):
    code: ClassVar[str] = "person_unknown"


class PersonNameTaken(Conflict):
    code: ClassVar[str] = "person_name_taken"


class LastAdminPerson(Conflict):
    """The last admin who can sign in stays one."""

    code: ClassVar[str] = "last_admin_person"


class HasPassword(Conflict):
    """An account with a password is not bound to a provider's subject."""

    code: ClassVar[str] = "has_password"


class SubjectTaken(Conflict):
    """Another account is bound to this subject."""

    code: ClassVar[str] = "subject_taken"


class BadSubject(Invalid):
    code: ClassVar[str] = "bad_subject"


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
    """Set a new password, end every session and what bound the account to a provider: an account
    has one way in. WeakPassword."""
    check_quality(password, name=row.name)
    row.password_hash = hash_password(password)
    end_sessions(session, row)
    _note(session, row, "person.password", actor, now)
    unbind(session, row, actor=actor, now=now)


def bind(
    session: Session,
    row: PersonRow,
    *,
    issuer: str,
    subject: str,
    actor: str,
    now: datetime,
    remove_password: bool = False,
) -> None:
    """Let whoever the provider calls `subject` in as this person, from now on.

    HasPassword unless it is to be removed; SubjectTaken, BadSubject.
    """
    known = identity(issuer, subject)
    if row.password_hash is not None and not remove_password:
        raise HasPassword(
            f"{row.name} has a password, and an account has one way in: "
            "allow the password to be removed (`pilotwave people bind NAME --subject SUBJECT "
            "--remove-password`)"
        )
    taken = session.scalar(
        select(PersonRow.name).where(PersonRow.oidc_subject == known, PersonRow.id != row.id)
    )
    if taken is not None:
        raise SubjectTaken(f"this subject is bound to {taken}: unbind it there first")
    before = _binding(row)
    row.oidc_subject, row.password_hash, row.totp_secret = known, None, None
    end_sessions(session, row)
    _note(session, row, "person.bind", actor, now, before, _binding(row))


def unbind(session: Session, row: PersonRow, *, actor: str, now: datetime) -> None:
    """Let the provider's subject in no more, and end every session; one that is not bound stays."""
    if row.oidc_subject is None:
        return
    before = _binding(row)
    row.oidc_subject = None
    end_sessions(session, row)
    _note(session, row, "person.unbind", actor, now, before)


def _binding(row: PersonRow) -> dict[str, str]:
    return {"oidc_subject": row.oidc_subject} if row.oidc_subject else {}


def identity(issuer: str, subject: object) -> str:
    """Who somebody is at a provider: the issuer's URL and the subject there (OpenID Connect Core,
    2). No other claim counts: names and addresses change hands. BadSubject."""
    plain = isinstance(subject, str) and subject.isprintable()
    if not isinstance(subject, str) or not plain or not 1 <= len(subject) <= MAX_SUBJECT:
        raise BadSubject(f"expected a subject of 1 to {MAX_SUBJECT} printable characters")
    if not 1 <= len(issuer) <= MAX_ISSUER or not issuer.isprintable() or " " in issuer:
        raise BadSubject(f"expected an issuer's URL of 1 to {MAX_ISSUER} characters")
    return f"{issuer} {subject}"


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


def look_at_link(session: Session, secret: str, *, now: datetime) -> PersonRow | None:
    """Whose link it is, without using it up; None: nobody's any more."""
    row = session.get(LoginLinkRow, hash_secret(secret))
    person = None if row is None or row.expires_at <= now else session.get(PersonRow, row.person_id)
    return None if person is None or person.disabled_at is not None else person


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
