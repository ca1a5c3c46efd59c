"""What refusals cost: requests that end in a "no" before anybody was known are paid for by their
address, and an address that owes waits.

The waiting is the server's, not an answer's: whoever sends one bad request after another gets one
answer in a while, for nearly nothing. Nobody is turned away for what a neighbour at the same
address did; they wait beside each other for a few seconds. Polls with a good token never wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import time
from collections import defaultdict
from collections.abc import Callable
from typing import ClassVar

from starlette.types import Scope

from pilotwave_server.buckets import Buckets
from pilotwave_server.errors import ServerError

# A unit is about a millisecond of the event loop.
BURST = 100.0
PER_SECOND = 20.0
IN_ALL_PER_SECOND = 40.0
BYTES_PER_UNIT = 8192
LONGEST_S = 5.0
MOST_WAITING = 32
CLOSE = {"Connection": "close", "Retry-After": "10"}
EVERYBODY = ""


class TooManyRefusals(ServerError):
    """Too many requests from this address were refused. Carries Retry-After."""

    status: ClassVar[int] = 429
    code: ClassVar[str] = "too_many_refusals"
    title: ClassVar[str] = "Too many refused requests"


class Pacing:
    """The debts of addresses, in one server process. Called on its event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._debts: Buckets[str] = Buckets(burst=BURST, per_second=PER_SECOND)
        self._in_all: Buckets[str] = Buckets(burst=BURST, per_second=IN_ALL_PER_SECOND)
        self._waiting: defaultdict[str, int] = defaultdict(int)

    def refused(self, scope: Scope, *, size: int = 0, units: float = 1.0) -> None:
        """Have the sender's address pay for a refusal after `size` bytes were read."""
        units, now = units + size / BYTES_PER_UNIT, self._clock()
        self._debts.charge(address_of(scope), now, units)
        self._in_all.charge(EVERYBODY, now, units)

    async def wait(self, scope: Scope) -> None:
        """Return when the sender's address owes nothing, or has waited. Raises TooManyRefusals
        where too many of the same address wait already."""
        if not self._debts:
            return
        address = address_of(scope)
        seconds = self._owed_s(address)
        if not seconds:
            return
        crowded = self._waiting[address] >= MOST_WAITING
        self._waiting[address] += 1
        try:
            await asyncio.sleep(min(seconds, LONGEST_S) if not crowded else LONGEST_S)
        finally:
            self._waiting[address] -= 1
            if not self._waiting[address]:
                del self._waiting[address]
        if crowded:
            raise TooManyRefusals("too many requests from here were refused", headers=CLOSE)

    async def slow_down(self, scope: Scope) -> None:
        """Have a refusal paid for, and wait before it is told."""
        self.refused(scope)
        with contextlib.suppress(TooManyRefusals):
            await self.wait(scope)

    def _owed_s(self, address: str) -> float:
        now = self._clock()
        own = self._debts.wait_s(address, now)
        if own or self._debts.left(address, now) >= BURST:
            return own  # who was refused nothing lately pays for nobody else
        return self._in_all.wait_s(EVERYBODY, now)


def address_of(scope: Scope) -> str:
    """Whom a request is from: an IPv4 address, or the network of an IPv6 one, as a host has all of
    that to choose from."""
    client = scope.get("client")
    host = str(client[0]) if client else "-"
    if ":" not in host:
        return host
    try:
        address = ipaddress.IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))
