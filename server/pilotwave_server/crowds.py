"""Which connections wait for their request to be whole, by address, and which of them give way.

A stranger may hold connections that say nothing, or little by little. So a connection that waits
has a deadline, and where there are too many, of one address or in all, the one that has waited
longest is closed for the newest. A request that comes in one piece waits for milliseconds, so
whoever has something to say gets in, however many say nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Protocol

SWEEP_S = 1.0
HEAD_S = 10.0
KEEP_ALIVE_S = 5.0
STALLED_S = 60.0
AT_ONCE = 32
NOBODY = "-"


class Waiting(Protocol):
    """A connection as it is seen here."""

    crowd: Crowd
    client: tuple[str, int] | None
    transport: asyncio.Transport

    @property
    def is_idle(self) -> bool: ...

    @property
    def is_read(self) -> bool: ...

    @property
    def may_give_way(self) -> bool: ...

    def give_way(self) -> None: ...


class Crowd:
    """The connections of one address. `waiting` is in the order of since when, in seconds."""

    __slots__ = ("address", "count", "waiting")

    def __init__(self, address: str) -> None:
        self.address = address
        self.count = 0
        self.waiting: dict[Waiting, float] = {}

    def oldest(self, most: int) -> list[Waiting]:
        """Those that have waited longest and may give way."""
        found: list[Waiting] = []
        for connection in self.waiting:
            if len(found) == most:
                break
            if connection.may_give_way:
                found.append(connection)
        return found


class Crowds:
    """All connections of a server process. Called on its event loop.

    `room` says how many there may be at the moment. `is_proxy` says of an address that many
    clients stand behind it, so that `per_address` does not hold for it (0: for none).
    """

    def __init__(
        self,
        *,
        room: Callable[[], int],
        per_address: int,
        is_proxy: Callable[[str], bool] = lambda address: False,
    ) -> None:
        self.count = 0
        self._crowds: dict[str, Crowd] = {}
        self._stalled: dict[Waiting, tuple[float, int]] = {}
        self._room = room
        self._per_address = per_address
        self._is_proxy = is_proxy
        self._timer: asyncio.TimerHandle | None = None

    # --- coming and going

    def let_in(self, connection: Waiting) -> bool:
        """Take a new one in. False: there is no room, and none could be made."""
        address = connection.client[0] if connection.client else NOBODY
        crowd = self._crowds.get(address)
        if crowd is None:
            crowd = self._crowds[address] = Crowd(address)
        connection.crowd = crowd
        crowd.count += 1
        self.count += 1
        crowd.waiting[connection] = time.monotonic()
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)
        return self._has_room(crowd, connection)

    def left(self, connection: Waiting) -> None:
        """Forget one that is gone, however often it is said."""
        crowd = getattr(connection, "crowd", None)
        if crowd is None:
            return
        del connection.crowd
        crowd.waiting.pop(connection, None)
        self._stalled.pop(connection, None)
        self.count -= 1
        crowd.count -= 1
        if not crowd.count:
            self._crowds.pop(crowd.address, None)

    def _has_room(self, crowd: Crowd, newest: Waiting) -> bool:
        most = self._per_address
        if most and crowd.count > most and not self._is_proxy(crowd.address):
            return self._make_room(crowd, newest)
        if self.count > self._room():
            return self._make_room(max(self._crowds.values(), key=_waiting), newest)
        return True

    def _make_room(self, crowd: Crowd, newest: Waiting) -> bool:
        """Close some at once, as looking for them takes longer than closing one."""
        some = max(1, min(AT_ONCE, len(crowd.waiting) // 4))
        oldest = [c for c in crowd.oldest(some + 1) if c is not newest][:some]
        for connection in oldest:
            self.left(connection)
            connection.give_way()
        return bool(oldest)

    # --- what a connection does

    def waits(self, connection: Waiting) -> None:
        """It was answered, and may say more."""
        waiting = connection.crowd.waiting
        waiting.pop(connection, None)
        waiting[connection] = time.monotonic()

    def works(self, connection: Waiting) -> None:
        """Its request is whole, and is being answered."""
        connection.crowd.waiting.pop(connection, None)

    def stalls(self, connection: Waiting) -> None:
        """It does not take what it is told as fast as it is said."""
        size = connection.transport.get_write_buffer_size()
        self._stalled[connection] = time.monotonic(), size

    def flows(self, connection: Waiting) -> None:
        self._stalled.pop(connection, None)

    # --- deadlines

    def _sweep(self) -> None:
        now = time.monotonic()
        for connection in [c for crowd in self._crowds.values() for c in late(crowd, now)]:
            connection.transport.close()
        for connection, (since, before) in list(self._stalled.items()):
            size = connection.transport.get_write_buffer_size()
            if size < before:
                self._stalled[connection] = now, size
            elif since <= now - STALLED_S:
                connection.transport.abort()
        again = self.count > 0
        self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep) if again else None


def _waiting(crowd: Crowd) -> int:
    return len(crowd.waiting)


def late(crowd: Crowd, now: float) -> Iterator[Waiting]:
    """Those that have waited too long: an answered one for its next request, or any for the end
    of its head, or of a body that nobody reads."""
    for connection, since in crowd.waiting.items():
        if since > now - KEEP_ALIVE_S:
            return
        if not connection.is_read and (connection.is_idle or since <= now - HEAD_S):
            yield connection
