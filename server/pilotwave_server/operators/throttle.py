"""Slow down who guesses passwords, in the database, so that any number of server processes count
together. What is counted decides who waits:

- a *browser* that signed in to the account before (its cookie says so) is counted by itself, so
  that no stranger's failures keep its owner out;
- else an *address* from which somebody signed in to the account before, with the account;
- else a *stranger*: the address with the account, the address, and the account, the last with far
  more failures free, so that many addresses together do not guess for ever.

After the free failures each further one doubles the wait, up to LONGEST. A success clears the
count of the browser and of the pair, never the address's or the account's.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import ClassVar

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from pilotwave_server.errors import ServerError
from pilotwave_server.operators.tables import LoginThrottleRow

FREE_BY_BROWSER = 5
FREE_BY_PAIR = 5
FREE_BY_ADDRESS = 20
FREE_BY_NAME = 50
FREE_INSIDE = 5
FIRST_WAIT = timedelta(seconds=2)
LONGEST = timedelta(minutes=15)
FORGOTTEN = timedelta(hours=1)


class TooManyTries(ServerError):
    """Too many failed logins for this name or from this address. Carries Retry-After."""

    status = 429
    code: ClassVar[str] = "too_many_tries"
    title = "Too many failed tries"


@dataclass(frozen=True)
class Try:
    """Somebody who tries to sign in. `browser` is the id of a browser that did before, if it is
    one; `known_address` says that somebody did from this address."""

    name: str
    address: str
    browser: str = ""
    known_address: bool = False

    @property
    def trusted(self) -> bool:
        """Whether this account was signed in to by the same browser before."""
        return bool(self.browser)

    @property
    def keys(self) -> Mapping[str, int]:
        """What is counted for a password, and how many failures of each are free."""
        name, network = self.name.lower(), network_of(self.address)
        if self.browser:
            return {_key("browser", self.browser): FREE_BY_BROWSER}
        pair = {_key("pair", name, network): FREE_BY_PAIR}
        if self.known_address:
            return pair
        more = {_key("address", network): FREE_BY_ADDRESS, _key("name", name): FREE_BY_NAME}
        return {**pair, **more}

    @property
    def code_keys(self) -> Mapping[str, int]:
        """The same for a one-time code, which nobody is asked for without the password."""
        if self.browser:
            return self.keys
        return {_key("code", self.name.lower()): FREE_INSIDE}


def inside(name: str) -> Mapping[str, int]:
    """What is counted for the password of somebody who is signed in already."""
    return {_key("inside", name.lower()): FREE_INSIDE}


def network_of(address: str) -> str:
    """What one machine's owner has at will: an IPv4 address, or an IPv6 network of 64 bits."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((int(found) >> 64 << 64, 64)))
    return str(found)


def _key(kind: str, *parts: str) -> str:
    # a hash, so that no length of a name makes two of them one
    return f"{kind}:{sha256(chr(0).join(parts).encode()).hexdigest()}"


def check(session: Session, keys: Iterable[str], *, now: datetime) -> None:
    """TooManyTries while any of them has to wait."""
    query = select(LoginThrottleRow).where(LoginThrottleRow.key.in_(list(keys)))
    until = max((row.blocked_until for row in session.scalars(query)), default=now)
    if until > now:
        wait = int((until - now).total_seconds()) + 1
        raise TooManyTries(
            f"too many failed tries: try again in {wait} s", headers={"Retry-After": str(wait)}
        )


def failed(session: Session, keys: Mapping[str, int], *, now: datetime) -> None:
    """Count a failure."""
    session.execute(delete(LoginThrottleRow).where(LoginThrottleRow.at < now - FORGOTTEN))
    for key, free in sorted(keys.items()):
        row = session.get(LoginThrottleRow, key, with_for_update=True)
        if row is None:
            row = LoginThrottleRow(key=key, failures=0, blocked_until=now)
            session.add(row)
        row.failures += 1
        row.at = now
        over = row.failures - free
        if over > 0:
            row.blocked_until = now + min(LONGEST, FIRST_WAIT * 2 ** min(over, 16))


def succeeded(session: Session, keys: Iterable[str]) -> None:
    """Forget the failures of who signed in."""
    own = [key for key in keys if not key.startswith(("address:", "name:"))]
    session.execute(delete(LoginThrottleRow).where(LoginThrottleRow.key.in_(own)))
