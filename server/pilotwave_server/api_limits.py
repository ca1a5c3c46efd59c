"""How many requests one token, and one address, may send to the operator API.

In each server process, in memory. A request over the limit is answered at once, and costs nearly
nothing: the caller is told when to come again.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from typing import ClassVar

from fastapi import Request

from pilotwave_server.buckets import Buckets
from pilotwave_server.errors import ServerError
from pilotwave_server.pacing import address_of

BURST_S = 10.0
"""So many seconds' worth may come at once."""
OF_AN_ADDRESS = 4.0
"""Several people and programs may share an address."""


class TooManyRequests(ServerError):
    """This token, or this address, sends more than the server allows. Carries Retry-After."""

    status: ClassVar[int] = 429
    code: ClassVar[str] = "too_many_requests"
    title: ClassVar[str] = "Too many requests"


class ApiLimits:
    """The buckets of tokens and addresses. `per_second` of 0 sets no limit."""

    def __init__(self, per_second: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._on = per_second > 0
        rate = per_second or 1.0
        self._tokens: Buckets[bytes] = Buckets(burst=rate * BURST_S, per_second=rate)
        all_rate = rate * OF_AN_ADDRESS
        self._addresses: Buckets[str] = Buckets(burst=all_rate * BURST_S, per_second=all_rate)

    def check(self, request: Request) -> None:
        """TooManyRequests where the sender has none left."""
        if not self._on:
            return
        now = self._clock()
        wait = self._addresses.take(address_of(request.scope), now)
        whose = "this address"
        secret = request.headers.get("authorization") or request.headers.get("cookie", "")
        if not wait and secret:
            # a digest: what may be a secret is not kept as a key
            wait = self._tokens.take(hashlib.sha256(secret.encode()).digest(), now)
            whose = "this token"
        if wait:
            seconds = math.ceil(wait)
            raise TooManyRequests(
                f"{whose} sends too many requests: come again in {seconds} s",
                headers={"Retry-After": str(seconds)},
            )
