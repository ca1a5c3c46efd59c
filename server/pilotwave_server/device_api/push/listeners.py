"""Who listens on one kind of channel, and whom a change concerns.

A change is looked at once for all listeners, in memory and on the event loop, where the polls are
answered too; only devices that the process does not know are read, many with one query. A device is
called when its set is another than when it was looked at last. Devices that wait for a place in a
paced rollout ask for it from here, as they would with each poll.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Protocol, TypeVar

from pilotwave_server.clock import Clock
from pilotwave_server.device_api.poll import ENROLLED, Polls
from pilotwave_server.fleet.records import DeviceRecord
from pilotwave_server.fleet.state import FleetState

log = logging.getLogger(__name__)

CHUNK = 500
TEND_S = 10.0
HELD_S = 60.0
"""Longer than it takes to find out that another process has ended."""
AFTER_FAILURE_S = 1.0
Item = TypeVar("Item")


class PushListener(Protocol):
    """A device's channel. `generation` is its key's, None where the channel cannot know it;
    `digest` that of the set that it was looked at with last, "" before the first look."""

    name: str
    generation: int | None
    digest: str

    def call(self, within_s: float) -> None:
        """Tell the device to poll at some moment within that time."""
        ...

    def end(self) -> None:
        """Close the channel: the device may not listen any more."""
        ...


class PushListeners:
    """The listeners of one kind. All but `heard` is called on the event loop.

    At most `rate` devices per second are made to poll: of more, each is told to come within a
    longer time. Where `may_call` says no, another process calls, and the calls are held for a while
    in case that it ends.
    """

    def __init__(
        self,
        fleet: FleetState,
        polls: Polls,
        *,
        clock: Clock,
        rate: float,
        may_call: Callable[[], bool] = lambda: True,
    ) -> None:
        self.listeners: dict[str, PushListener] = {}
        self._fleet = fleet
        self._polls = polls
        self._clock = clock
        self._rate = rate
        self._may_call = may_call
        self._held: dict[str, float] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._seen: object = None
        self._dirty: set[str] = set()
        self._waiting: set[str] = set()
        self._task: asyncio.Task[None] | None = None
        self._taking: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Work on `loop` from now on. May be called on any thread."""
        self._loop = loop
        self._fleet.on_refresh.append(self.heard)
        loop.call_soon_threadsafe(self._tend)

    def stop(self) -> None:
        """Call nobody any more. May be called on any thread."""
        self._fleet.on_refresh.remove(self.heard)
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        for running in (self._timer, self._task, self._taking):
            if running is not None:
                running.cancel()

    # --- coming and going

    def arrived(self, listener: PushListener, *, call: bool) -> None:
        """Take a listener in, in place of one of the same name; `call` it once it is known."""
        before = self.listeners.get(listener.name)
        self.listeners[listener.name] = listener
        if before is not None and before is not listener:
            before.end()
        record = None if call else self._polls.look(listener.name, self._moment())
        if record is None:
            self._note([listener.name])
        elif record.order is not None:
            listener.digest = record.offer

    def left(self, listener: PushListener) -> None:
        """Forget a listener, unless another one has its name by now."""
        if self.listeners.get(listener.name) is listener:
            del self.listeners[listener.name]
            self._waiting.discard(listener.name)

    def clear(self) -> None:
        """Forget them all: who is there still will be heard of anew."""
        self.listeners.clear()
        self._waiting.clear()

    # --- changes

    def heard(self, changed: Collection[str]) -> None:
        """The fleet's picture changed, these devices among it. May be called on any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._note, changed)

    def _note(self, changed: Collection[str]) -> None:
        self._dirty.update(self.listeners.keys() & changed)
        if self._fleet.snapshot is not self._seen:
            self._seen = self._fleet.snapshot
            self._dirty.update(self.listeners)
        if self._dirty and self._loop is not None and (self._task is None or self._task.done()):
            self._task = self._loop.create_task(self._work())

    async def _work(self) -> None:
        while self._dirty:
            names, self._dirty = list(self._dirty), set()
            concerned: list[PushListener] = []
            unknown: list[str] = []
            for chunk in chunks(names):
                for name in chunk:
                    if not self._look(name, concerned):
                        unknown.append(name)
                await asyncio.sleep(0)
            for chunk in chunks(unknown):
                await self._load(chunk, concerned)
            await self._call(concerned)

    async def _call(self, concerned: Sequence[PushListener]) -> None:
        """Call them, or hold the calls that another process makes."""
        now = time.monotonic()
        if not self._may_call():
            self._held.update((listener.name, now) for listener in concerned)
            return
        within_s = (len(concerned) - 1) / self._rate
        for some in chunks(concerned):
            for listener in some:
                listener.call(within_s)
            await asyncio.sleep(0)

    async def _take_over(self) -> None:
        """Make the calls that a process which ended may not have made."""
        since = time.monotonic() - HELD_S
        held = [name for name, at in self._held.items() if at >= since]
        if self._may_call():
            self._held = {}
            await self._call([self.listeners[name] for name in held if name in self.listeners])
        else:
            self._held = {name: self._held[name] for name in held}

    async def _load(self, names: Sequence[str], concerned: list[PushListener]) -> None:
        """Look at devices that this process does not know yet, or not any more."""
        try:
            found = await asyncio.to_thread(self._fleet.load, names)
        except Exception as error:
            log.warning("devices to be called could not be loaded: %s", type(error).__name__)
            self._dirty.update(names)
            await asyncio.sleep(AFTER_FAILURE_S)
            return
        for name in names:
            if name not in found:
                self._end(name)
            elif not self._look(name, concerned):
                self._dirty.add(name)  # it changed again meanwhile

    def _look(self, name: str, concerned: list[PushListener]) -> bool:
        """Add the device to those to be called if its set changed. False: load it first."""
        listener = self.listeners.get(name)
        if listener is None:
            return True
        record = self._polls.look(name, self._moment())
        if record is None:
            return False
        if not may_listen(record, listener):
            self._end(name)
            return True
        assert record.order is not None
        if record.offer != listener.digest:
            listener.digest = record.offer
            concerned.append(listener)
        if record.wants:
            self._waiting.add(name)
        else:
            self._waiting.discard(name)
        return True

    def _end(self, name: str) -> None:
        listener = self.listeners.get(name)
        if listener is not None:
            self.left(listener)
            listener.end()

    def _tend(self) -> None:
        """Ask again for those that wait for a place in a paced rollout."""
        if self._loop is None:
            return
        self._timer = self._loop.call_later(TEND_S, self._tend)
        self._note([*self._waiting])
        if self._held and (self._taking is None or self._taking.done()):
            self._taking = self._loop.create_task(self._take_over())

    def _moment(self) -> float:
        return self._clock().timestamp()


def may_listen(record: DeviceRecord, listener: PushListener) -> bool:
    """Say whether the device is still the one that opened the channel."""
    return record.state == ENROLLED and listener.generation in (None, record.generation)


def chunks(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """The items, in portions after each of which others may have their turn."""
    return (items[at : at + CHUNK] for at in range(0, len(items), CHUNK))
