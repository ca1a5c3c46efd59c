"""Keep the newest events in memory for everybody who follows them in this process.

A listener has no buffer of its own, only its place: what it has not sent yet it takes from the
common memory of `KEPT` events or, if it fell behind that, from the database. So a slow listener
costs nothing and loses nothing. The tables are read only while somebody listens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, NamedTuple

from starlette.concurrency import run_in_threadpool

from pilotwave_server.db import Database
from pilotwave_server.errors import Unavailable
from pilotwave_server.events.feed import START, Cursor, Event, Types, read_events
from pilotwave_server.events.settled import Settled

KEPT = 2000
PAGE = 500
MAX_LISTENERS = 2000
EVERYTHING = Types([])


class TooManyListeners(Unavailable):
    code: ClassVar[str] = "too_many_listeners"


class _Recent(NamedTuple):
    """The events between two places; the first has the running number `base`."""

    base: int
    events: tuple[Event, ...]
    since: Cursor
    end: Cursor

    @property
    def next(self) -> int:
        return self.base + len(self.events)


class Hub:
    """`follow` is called on one thread, everything else on the event loop."""

    def __init__(self, db: Database, settled: Settled) -> None:
        self._db = db
        self.settled = settled
        self.recent = _Recent(0, (), START, START)
        self.news = asyncio.Event()
        self.closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listeners = 0

    def check_room(self) -> None:
        """Raise TooManyListeners when there is no room, or the server starts or ends."""
        if self.closed or not self.settled.known or self._listeners >= MAX_LISTENERS:
            raise TooManyListeners("this server has no room for another listener; try again soon")

    @contextmanager
    def listener(self, types: Types, cursor: Cursor) -> Iterator[EventListener]:
        """Listen from `cursor` on."""
        self._loop = asyncio.get_running_loop()
        self._listeners += 1
        try:
            yield EventListener(self, types, cursor)
        finally:
            self._listeners -= 1

    def close(self) -> None:
        """Let every listener end, because the server does."""
        self.closed = True
        self._tell()

    def follow(self) -> None:
        """Take in what became settled since the last time."""
        until = self.settled.look()
        recent = self.recent
        if not self._listeners:
            # one number is left out, so that whoever joins meanwhile goes by its place
            self.recent = _Recent(recent.next + 1, (), until, until)
            return
        if recent.end.covers(until):
            return
        while not recent.end.covers(until):
            events, place = self.read(EVERYTHING, recent.end, until)
            recent = _longer(recent, events, place)
        self.recent = recent
        self._tell()

    def read(self, types: Types, after: Cursor, until: Cursor) -> tuple[list[Event], Cursor]:
        """Read a page of the database. On a thread."""
        with self._db.read() as session:
            return read_events(session, types, after=after, until=until, limit=PAGE)

    def _tell(self) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        news, self.news = self.news, asyncio.Event()
        news.set()


class EventListener:
    """One who follows: `cursor` is the place behind everything it was given."""

    def __init__(self, hub: Hub, types: Types, cursor: Cursor) -> None:
        self._hub = hub
        self._types = types
        self._next: int | None = None
        self.cursor = cursor

    async def more(self, timeout_s: float) -> list[Event]:
        """Return the next events; none after `timeout_s`, or when the hub was closed."""
        news = self._hub.news
        found = await self._take()
        if not found and self._next is not None and not self._hub.closed:
            try:
                await asyncio.wait_for(news.wait(), timeout_s)
            except asyncio.TimeoutError:
                return []
            found = await self._take()
        return found

    async def _take(self) -> list[Event]:
        recent = self._hub.recent
        if self._next is not None and self._next >= recent.base:
            found = recent.events[self._next - recent.base :]
        elif self.cursor.covers(recent.since):
            found = tuple(e for e in recent.events if e.lies_behind(self.cursor))
        else:
            return await self._read()
        self._next = recent.next
        self.cursor = self.cursor.furthest(recent.end)
        return [event for event in found if event.type in self._types]

    async def _read(self) -> list[Event]:
        self._next = None
        until = self._hub.settled.place
        found, place = await run_in_threadpool(self._hub.read, self._types, self.cursor, until)
        self.cursor = self.cursor.furthest(place)
        return found


def _longer(recent: _Recent, events: list[Event], end: Cursor) -> _Recent:
    """`recent` with more events, and without the oldest where it gets too long."""
    every = (*recent.events, *events)
    since = recent.since
    dropped = max(0, len(every) - KEPT)
    for event in every[:dropped]:
        since = event.after_cursor(since)
    return _Recent(recent.base + dropped, every[dropped:], since, end)
