"""Since when a fleet is listened to, by the rows of its processes."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from pilotwave_server.hosts.living import STALE, Process, read_fleet

NOON = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)
MORNING = NOON - timedelta(hours=4)
NOW, GONE = timedelta(), STALE + timedelta(seconds=1)


def process(
    name: str, *, age: timedelta = NOW, since: datetime = MORNING, heard: int | None = None
) -> Process:
    """`a1` is a process of the host `a`; `heard` is so many minutes before noon."""
    heard_at = None if heard is None else NOON - timedelta(minutes=heard)
    return Process(name, name[0], age, since, heard_at)


JUST = NOON - timedelta(minutes=1)


@pytest.mark.parametrize(
    ("me", "others", "since"),
    [
        # alone, and no device was ever heard: as long as it runs
        (process("a1"), [], MORNING),
        # another host hears devices: on its word one that just started may judge
        (process("a1", since=JUST), [process("b1", heard=0)], MORNING),
        # the host that devices reached is gone, and nobody has heard one since
        (process("a1"), [process("b1", age=GONE, heard=10)], None),
        (process("a1", heard=60), [process("b1", age=GONE, heard=10)], None),
        # both were reached: the one that is left goes on
        (process("a1", heard=11), [process("b1", age=GONE, heard=10)], MORNING),
        # devices have found the way to this one
        (process("a1", since=JUST, heard=1), [process("b1", age=GONE, heard=10)], JUST),
        # the host is there again, as another process: its devices get their time from its start
        (
            process("a1"),
            [process("b1", age=GONE, heard=10), process("b2", since=JUST)],
            JUST,
        ),
        (process("b2", since=JUST), [process("b1", age=GONE, heard=10)], JUST),
    ],
)
def test_silence_is_judged_as_long_as_devices_reach_somebody(
    me: Process, others: list[Process], since: datetime | None
) -> None:
    assert read_fleet([me, *others], me).listening_since == since


def test_the_living_are_counted_and_oneself_always() -> None:
    me = process("a1")
    rows = [process("a1", age=GONE), process("a2"), process("b1"), process("c1", age=GONE)]
    fleet = read_fleet(rows, me)
    assert (fleet.processes, fleet.hosts) == (3, 2)


def test_one_of_the_living_is_the_first() -> None:
    rows = [process("a1", age=GONE), process("b1"), process("c1")]
    assert [read_fleet(rows, me).first for me in rows[1:]] == [True, False]
