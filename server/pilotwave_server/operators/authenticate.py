"""Checking an operator token, most times without the database.

A token that was good is remembered for a few seconds, so that a request costs no query; a revoked
one is therefore dead at once in the process that revoked it and within REMEMBER_S in the others.
Uses are noted in memory and written once a minute.
"""

from __future__ import annotations

import hmac
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import or_, update

from pilotwave_server.db import Database
from pilotwave_server.errors import Unauthorised
from pilotwave_server.operators.roles import Actor, Role
from pilotwave_server.operators.service import hash_secret
from pilotwave_server.operators.tables import OperatorTokenRow

REMEMBER_S = 3
MAX_REMEMBERED = 1024
MAX_TOKEN_LENGTH = 200
NO_SECRET = hash_secret("")


class TokenMissing(Unauthorised):
    code = "token_missing"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, headers={"WWW-Authenticate": "Bearer"})


class TokenUnknown(TokenMissing):
    """No such token, or the wrong secret: one answer for both."""

    code = "token_unknown"


class TokenExpired(TokenMissing):
    code = "token_expired"


class TokenRevoked(TokenMissing):
    code = "token_revoked"


@dataclass(frozen=True)
class RememberedToken:
    actor: Actor
    secret_sha256: str
    until: datetime


class OperatorTokens:
    """The tokens of one server process. Safe to share between threads."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._remembered: dict[str, RememberedToken] = {}
        self._used: dict[str, datetime] = {}
        self._lock = threading.Lock()

    def recall(self, token: str, *, now: datetime) -> Actor | None:
        """The token's actor if it was found good a moment ago, else None. No database."""
        token_id, secret = split(token)
        known = self._remembered.get(token_id)
        if known is None or now >= known.until:
            return None
        if not hmac.compare_digest(known.secret_sha256, hash_secret(secret)):
            return None
        self._note(token_id, now)
        return known.actor

    def authenticate(self, token: str, *, now: datetime) -> Actor:
        """The token's actor by the database; TokenUnknown, TokenExpired, TokenRevoked."""
        token_id, secret = split(token)
        with self._db.read() as session:
            row = session.get(OperatorTokenRow, token_id)
        expected = NO_SECRET if row is None else row.secret_sha256
        right = hmac.compare_digest(expected, hash_secret(secret))
        if row is None or not right:
            raise TokenUnknown("this operator token is not known")
        if row.revoked_at is not None:
            raise TokenRevoked("this operator token was revoked")
        if row.expires_at is not None and row.expires_at <= now:
            raise TokenExpired("this operator token has expired")
        until = now + timedelta(seconds=REMEMBER_S)
        if row.expires_at is not None:
            until = min(until, row.expires_at)
        actor = Actor(
            row.id,
            row.name,
            Role(row.role),
            models=None if row.models is None else frozenset(row.models),
            groups=None if row.groups is None else frozenset(row.groups),
        )
        self._remember(token_id, RememberedToken(actor, row.secret_sha256, until))
        self._note(token_id, now)
        return actor

    def forget(self, token_id: str) -> None:
        """Let the next use of a token ask the database again."""
        with self._lock:
            self._remembered.pop(token_id, None)

    def flush(self) -> None:
        """Write when each token was last used."""
        with self._lock:
            used, self._used = self._used, {}
        if used:
            self._write(used.items())

    def _write(self, used: Iterable[tuple[str, datetime]]) -> None:
        row = OperatorTokenRow
        with self._db.write() as session:
            for token_id, at in used:
                newer = or_(row.last_used_at.is_(None), row.last_used_at < at)
                session.execute(
                    update(row).where(row.id == token_id, newer).values(last_used_at=at)
                )

    def _remember(self, token_id: str, entry: RememberedToken) -> None:
        with self._lock:
            if len(self._remembered) >= MAX_REMEMBERED:
                self._remembered.clear()
            self._remembered[token_id] = entry

    def _note(self, token_id: str, now: datetime) -> None:
        with self._lock:
            self._used[token_id] = now


def split(token: str) -> tuple[str, str]:
    """The id and the secret in `pw_<id>_<secret>`, or TokenUnknown."""
    parts = token.split("_") if len(token) <= MAX_TOKEN_LENGTH else []
    if len(parts) != 3 or parts[0] != "pw" or not token.isascii() or "\x00" in token:
        raise TokenUnknown("expected an operator token, which looks like pw_<id>_<secret>")
    return parts[1], parts[2]
