"""A person's session in the browser: a random cookie whose hash is in the database, and with it a
token against forged requests (CSRF).

The id changes at each step of signing in, so that a planted cookie is worth nothing. A session ends
after IDLE without use, after LIFE in any case, and with the account.
"""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import delete, update
from sqlalchemy.orm import Session

from pilotwave_server.db import Database
from pilotwave_server.operators.roles import Actor, Role
from pilotwave_server.operators.service import hash_secret
from pilotwave_server.operators.tables import PersonRow, PersonSessionRow

COOKIE = "pilotwave_session"
IDLE = timedelta(hours=12)
LIFE = timedelta(days=7)
HALF_WAY = timedelta(minutes=10)
SEEN = timedelta(minutes=5)
REMEMBER = timedelta(seconds=3)
MAX_REMEMBERED = 1024
SECRET_LENGTH = 64


@dataclass(frozen=True)
class SignedIn:
    """Somebody's session. `half_way`: the password was right and the one-time code is awaited."""

    actor: Actor
    csrf: str = field(repr=False)
    session_id: str = field(repr=False)
    half_way: bool = False
    language: str | None = None


def start(session: Session, row: PersonRow, *, now: datetime, half_way: bool = False) -> str:
    """Begin a session and return the cookie's value."""
    secret = secrets.token_hex(SECRET_LENGTH // 2)
    session.execute(delete(PersonSessionRow).where(PersonSessionRow.expires_at < now))
    session.add(
        PersonSessionRow(
            secret_sha256=hash_secret(secret),
            person_id=row.id,
            csrf=secrets.token_hex(16),
            half_way=half_way,
            created_at=now,
            seen_at=now,
            expires_at=now + (HALF_WAY if half_way else LIFE),
        )
    )
    return secret


def end(session: Session, session_id: str) -> None:
    """End one session."""
    session.execute(delete(PersonSessionRow).where(PersonSessionRow.secret_sha256 == session_id))


@dataclass(frozen=True)
class _Remembered:
    signed_in: SignedIn
    until: datetime


class PersonSessions:
    """Sessions as one server process checks them, most times without the database.

    One that ended is dead at once in the process that ended it, and within REMEMBER in the others.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._remembered: dict[str, _Remembered] = {}
        self._lock = threading.Lock()

    def recall(self, cookie: str, *, now: datetime) -> SignedIn | None:
        """Who it is, if that was found a moment ago. No database."""
        known = self._remembered.get(hash_secret(cookie))
        return known.signed_in if known is not None and now < known.until else None

    def find(self, cookie: str, *, now: datetime) -> SignedIn | None:
        """Who it is by the database; None for a session that is not, or not any more."""
        if len(cookie) != SECRET_LENGTH:
            return None
        session_id = hash_secret(cookie)
        with self._db.read() as session:
            row = session.get(PersonSessionRow, session_id)
            person = None if row is None else session.get(PersonRow, row.person_id)
        if row is None or person is None or person.disabled_at is not None:
            return None
        if row.expires_at <= now or row.seen_at + IDLE <= now:
            return None
        if row.seen_at + SEEN <= now:
            self._seen(session_id, now)
        actor = Actor(f"person-{person.id}", person.name, Role(person.role), kind="person")
        found = SignedIn(actor, row.csrf, session_id, row.half_way, person.language)
        with self._lock:
            if len(self._remembered) >= MAX_REMEMBERED:
                self._remembered.clear()
            self._remembered[session_id] = _Remembered(found, now + REMEMBER)
        return found

    def forget(self) -> None:
        """Ask the database again for everybody, after a session or an account changed."""
        with self._lock:
            self._remembered.clear()

    def _seen(self, session_id: str, now: datetime) -> None:
        row = PersonSessionRow
        with self._db.write() as session:
            session.execute(update(row).where(row.secret_sha256 == session_id).values(seen_at=now))
