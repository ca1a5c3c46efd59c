"""Slow down who guesses passwords: by account and by address, in the database, so that any number
of server processes count together.

After FREE failures each further one doubles the wait, up to LONGEST. A success clears the account's
count, never the address's.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import ClassVar

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from pilotwave_server.errors import ServerError
from pilotwave_server.operators.tables import LoginThrottleRow

FREE_BY_NAME = 5
FREE_BY_ADDRESS = 20
FIRST_WAIT = timedelta(seconds=2)
LONGEST = timedelta(minutes=15)
FORGOTTEN = timedelta(hours=1)
KEY_LENGTH = 200


class TooManyTries(ServerError):
    """Too many failed logins for this name or from this address. Carries Retry-After."""

    status = 429
    code: ClassVar[str] = "too_many_tries"
    title = "Too many failed tries"


def keys(name: str, address: str) -> dict[str, int]:
    """What is counted, and how many failures of each are free."""
    return {
        f"name:{name.lower()}"[:KEY_LENGTH]: FREE_BY_NAME,
        f"address:{address}"[:KEY_LENGTH]: FREE_BY_ADDRESS,
    }


def check(session: Session, *, name: str, address: str, now: datetime) -> None:
    """TooManyTries while either has to wait."""
    query = select(LoginThrottleRow).where(LoginThrottleRow.key.in_(keys(name, address)))
    until = max((row.blocked_until for row in session.scalars(query)), default=now)
    if until > now:
        wait = int((until - now).total_seconds()) + 1
        raise TooManyTries(
            f"too many failed tries: try again in {wait} s", headers={"Retry-After": str(wait)}
        )


def failed(session: Session, *, name: str, address: str, now: datetime) -> None:
    """Count a failure."""
    session.execute(delete(LoginThrottleRow).where(LoginThrottleRow.at < now - FORGOTTEN))
    for key, free in keys(name, address).items():
        row = session.get(LoginThrottleRow, key, with_for_update=True)
        if row is None:
            row = LoginThrottleRow(key=key, failures=0, blocked_until=now)
            session.add(row)
        row.failures += 1
        row.at = now
        over = row.failures - free
        if over > 0:
            row.blocked_until = now + min(LONGEST, FIRST_WAIT * 2 ** min(over, 16))


def succeeded(session: Session, *, name: str) -> None:
    """Forget an account's failures."""
    key = next(iter(keys(name, "")))
    session.execute(delete(LoginThrottleRow).where(LoginThrottleRow.key == key))
