"""Browsers that signed in to an account before, and from which addresses.

They are slowed down by their own failures alone (`throttle`). A browser that is known opens
nothing: it still needs the password and the code.
"""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from pilotwave_server.operators.service import hash_secret
from pilotwave_server.operators.tables import KnownBrowserRow, PersonRow
from pilotwave_server.operators.throttle import Try, network_of

COOKIE = "pilotwave_known"
LIFE = timedelta(days=180)
MOST = 50
SECRET_BYTES = 32


def recognise(session: Session, *, name: str, address: str, cookie: str, now: datetime) -> Try:
    """Who tries to sign in as `name`: a browser or an address that did before, or a stranger."""
    k = KnownBrowserRow
    since = select(k).join(PersonRow, PersonRow.id == k.person_id)
    since = since.where(PersonRow.name == name, k.used_at > now - LIFE)
    network = network_of(address)
    if cookie:
        row = session.scalar(since.where(k.secret_sha256 == hash_secret(cookie)))
        if row is not None:
            return Try(name, address, browser=row.secret_sha256)
    known = session.scalar(since.where(k.address == network).limit(1)) is not None
    return Try(name, address, known_address=known)


def remember(session: Session, person: PersonRow, *, address: str, now: datetime) -> str:
    """Remember the browser that has just signed in; the cookie's value that it is to keep."""
    secret = secrets.token_hex(SECRET_BYTES)
    k = KnownBrowserRow
    session.add(
        k(
            secret_sha256=hash_secret(secret),
            person_id=person.id,
            address=network_of(address),
            used_at=now,
        )
    )
    session.flush()
    newest = select(k.secret_sha256).where(k.person_id == person.id)
    newest = newest.order_by(k.used_at.desc(), k.secret_sha256).offset(MOST)
    old = list(session.scalars(newest))
    if old:
        session.execute(delete(k).where(k.secret_sha256.in_(old)))
    return secret
