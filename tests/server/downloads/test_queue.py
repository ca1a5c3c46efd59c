"""Places are shared fairly: between sites, between a site's devices, and whoever cannot wait."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

import pytest

from pilotwave_server.blobs.flow import ReaderGone
from pilotwave_server.downloads.pace import ByteRate
from pilotwave_server.downloads.queue import DownloadsBusy, FairQueue


class Room:
    """A queue, and those that came to it, in the order of their turns."""

    def __init__(self, **given: Any) -> None:
        limits = {"most": 1, "per_device": 1, "waiting": 1000, "wait_s": 30.0, **given}
        self.queue = FairQueue(**limits)
        self.turns: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.loop = asyncio.get_running_loop()

    def come(self, site: str, device: str) -> asyncio.Task[None]:
        """Have a device ask for a place."""

        async def ask() -> None:
            await self.queue.enter(site, device, self.loop.create_future())
            self.turns.append(device)

        task = self.loop.create_task(ask())
        self.tasks.append(task)
        return task

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    async def leave(self, site: str, device: str) -> None:
        self.queue.leave(site, device, 1.0)
        await self.settle()

    async def end(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


def run(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(story, 30))


def test_a_site_of_fifty_takes_no_turn_from_a_site_of_one() -> None:
    async def story() -> None:
        room = Room(most=2)
        for n in range(50):
            room.come("big", f"b{n}")
        await room.settle()
        room.come("small", "s")
        await room.settle()
        assert room.turns == ["b0", "b1"]
        await room.leave("big", "b0")
        assert room.turns[-1] == "s"
        await room.leave("big", "b1")
        assert room.turns[-1] == "b2"
        room.come("small", "s2")
        await room.settle()
        await room.leave("small", "s")
        assert room.turns[-1] == "s2"
        await room.end()

    run(story())


def test_sites_take_turns_and_within_a_site_devices_do() -> None:
    async def story() -> None:
        room = Room(per_device=9)
        room.come("a", "first")
        await room.settle()
        for device in ("a1", "a1", "a1", "a2"):
            room.come("a", device)
        for device in ("b1", "b1"):
            room.come("b", device)
        await room.settle()
        where = {"first": "a", "a1": "a", "a2": "a", "b1": "b"}
        for _ in range(6):
            await room.leave(where[room.turns[-1]], room.turns[-1])
        assert room.turns == ["first", "b1", "a1", "b1", "a2", "a1", "a1"]
        await room.end()

    run(story())


def test_a_device_and_a_site_have_so_many_at_once_and_no_more() -> None:
    async def story() -> None:
        room = Room(most=10, per_device=2, most_at=lambda site: 3 if site == "a" else 0)
        for device in ("a1", "a1", "a1", "a2", "a3", "b1", "b1", "b1"):
            room.come("a" if device[0] == "a" else "b", device)
        await room.settle()
        assert sorted(room.turns) == ["a1", "a1", "a2", "b1", "b1"]
        await room.leave("b", "b1")
        await room.leave("a", "a2")
        assert sorted(room.turns[5:]) == ["a3", "b1"]
        await room.leave("a", "a1")
        assert room.turns[7:] == ["a1"]
        await room.end()
        assert room.queue.waiting == 0

    run(story())


def test_whoever_waits_too_long_is_told_when_to_come_again() -> None:
    async def story() -> None:
        room = Room(wait_s=0.05)
        room.come("a", "a1")
        await room.settle()
        for site, least in (("a", 2), ("b", 1)):
            with pytest.raises(DownloadsBusy) as no:
                await room.come(site, "late")
            after = int(no.value.headers["Retry-After"])
            assert after == 1 if least == 1 else least <= after <= 60
        assert room.queue.waiting == 0
        await room.leave("a", "a1")
        await room.come("b", "late")

    run(story())


def test_a_full_queue_sends_the_newest_of_the_longest_line_away() -> None:
    async def story() -> None:
        room = Room(waiting=4)
        room.come("a", "a0")
        await room.settle()
        waiting = [room.come("a", f"a{n}") for n in range(1, 5)]
        await room.settle()
        small = room.come("b", "b1")
        await room.settle()
        assert [task.done() for task in waiting] == [False, False, False, True]
        assert isinstance(waiting[3].exception(), DownloadsBusy)
        with pytest.raises(DownloadsBusy):
            await room.come("a", "a9")
        await room.leave("a", "a0")
        assert small.done()
        assert room.turns[-1] == "b1"
        await room.end()

    run(story())


def test_who_goes_away_leaves_no_place_taken() -> None:
    async def story() -> None:
        room = Room()
        room.come("a", "a1")
        await room.settle()
        gone = room.loop.create_future()
        waiting = room.loop.create_task(room.queue.enter("a", "a2", gone))
        await room.settle()
        gone.set_result(None)
        with pytest.raises(ReaderGone):
            await waiting
        # cancelled in the very moment that the turn comes
        late = room.come("a", "a3")
        await room.settle()
        room.queue.leave("a", "a1", 1.0)
        late.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await late
        await room.settle()
        assert (room.queue.running, room.queue.waiting) == (0, 0)

    run(story())


def test_a_pace_is_kept_by_all_who_share_it_and_saves_nothing_up() -> None:
    pace = ByteRate(1000)
    waits = [pace.take(100, now=5.0) for _ in range(11)]
    assert waits[0] == 0
    assert waits[-1] == pytest.approx(0.95)  # ten pieces of a tenth, less what a moment saved
    assert pace.take(100, now=100.0) == 0
    assert pace.take(100, now=100.0) == pytest.approx(0.05)
    pace.rate = 100
    assert pace.take(100, now=100.0) == pytest.approx(0.15)
    assert pace.take(100, now=100.0) == pytest.approx(1.15)
