"""Windows where clocks change, against a model that looks at a clock on the wall each minute."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from functools import cache, lru_cache
from pathlib import Path
from zoneinfo import ZoneInfo, available_timezones

import pytest

from pilotwave_agent.core.conditions import CHANGE, FETCH, hold, own_hold
from pilotwave_agent.core.environment import Environment
from pilotwave_agent.core.windows import open_in
from pilotwave_agent.settings.config import parse
from pilotwave_agent.settings.dayhours import DayHours
from pilotwave_agent.settings.download_limits import OwnLimits

MINUTE = timedelta(minutes=1)
AROUND = timedelta(days=2)
YEARS = range(2016, 2027)
CRONS = [
    ("30 2 * * *", 60),
    ("0 2 * * *", 180),
    ("15 2 * * *", 30),
    ("30 1 * * *", 60),
    ("0 0 * * *", 90),
    ("45 23 * * *", 45),
    ("0 22 * * *", 480),
    ("*/20 1-3 * * *", 7),
    ("5 * * * *", 10),
    ("0,30 */2 * * *", 1),
    ("30 2 * * 0", 120),
    ("0 3 * * *", 49 * 60),
    ("* * * * *", 1),
]
HOURS = [
    DayHours(22 * 60, 6 * 60),
    DayHours(2 * 60, 2 * 60 + 30),
    DayHours(60, 150),
    DayHours(150, 100, frozenset({0, 6})),
    DayHours(0, 1440, frozenset({0})),
    DayHours(23 * 60 + 30, 15),
]


def at(text: str, zone: str = "Europe/Berlin", *, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)


# --- the model: one look at the clock a minute, and nothing clever


@cache
def changes(name: str) -> tuple[datetime, ...]:
    """The instants in ten years, in UTC, at which the clocks of a zone are changed."""
    zone, found = ZoneInfo(name), []
    moment = datetime(YEARS[0], 1, 1, tzinfo=timezone.utc)
    while moment.year in YEARS:
        after = moment + timedelta(hours=12)
        if offset(moment, zone) != offset(after, zone):
            low = moment
            while offset(low, zone) == offset(low + MINUTE, zone):
                low += MINUTE
            found.append(low + MINUTE)
        moment = after
    return tuple(found)


def offset(moment: datetime, zone: ZoneInfo) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta()


@lru_cache(1 << 14)
def shown(moment: datetime, zone: ZoneInfo) -> datetime:
    return moment.astimezone(zone).replace(tzinfo=None)


@cache
def matches(field: str, value: int) -> bool:
    for part in field.split(","):
        span, _, step = part.partition("/")
        low, _, high = span.partition("-")
        if span == "*":
            ok = True
        else:
            ok = int(low) <= value <= int(high or low)
        if ok and (value - (0 if span == "*" else int(low))) % int(step or 1) == 0:
            return True
    return False


def named(cron: str, wall: datetime) -> bool:
    minute, hour, *_, weekday = cron.split()
    day = matches(weekday, wall.isoweekday() % 7)
    return day and matches(minute, wall.minute) and matches(hour, wall.hour)


def begun_at(cron: str, zone: ZoneInfo, minutes: list[datetime]) -> Iterator[datetime]:
    """The minutes at which a window begins, one look after the other."""
    fixed = not any(field.startswith("*") for field in cron.split()[:2])
    seen: set[datetime] = set()
    before = shown(minutes[0], zone) - MINUTE
    for minute in minutes:
        wall = shown(minute, zone)
        missing, step = False, before + MINUTE
        while fixed and step < wall:  # the clock was put forward over these
            missing, step = missing or named(cron, step), step + MINUTE
        if missing or (named(cron, wall) and not (fixed and wall in seen)):
            yield minute
        seen.add(wall)
        before = wall


def held_by(hours: DayHours, wall: datetime) -> bool:
    """Whether the hours hold, from going over the minutes that they have."""
    length = (hours.end - hours.begin) % 1440 or 1440
    for back in (0, 1):
        day = wall.date() - timedelta(days=back)
        start = datetime.combine(day, datetime.min.time()) + hours.begin * MINUTE
        if day.isoweekday() % 7 in hours.days and start <= wall < start + length * MINUTE:
            return True
    return False


def minutes_around(change: datetime, before: timedelta = AROUND) -> list[datetime]:
    count = int((before + AROUND) / MINUTE)
    return [change - before + n * MINUTE for n in range(count)]


def check_cron(cron: str, length: int, name: str, change: datetime, chance: random.Random) -> None:
    zone = ZoneInfo(name)
    before = AROUND + length * MINUTE
    minutes = minutes_around(change, before)
    starts = list(begun_at(cron, zone, minutes))
    looks = {change + n * MINUTE for n in (-61, -31, -1, 0, 1, 29, 30, 31, 59, 60, 61, 119, 120)}
    looks |= {change + chance.randrange(-600, 600) * MINUTE for _ in range(12)}
    for look in sorted(looks):
        open_now = any(look - length * MINUTE < start <= look for start in starts)
        coming = min((start for start in starts if start > look), default=None)
        found = open_in(cron, length * 60, look.astimezone(zone))
        story = f"{cron} for {length} min in {name} at {look.astimezone(zone):%F %H:%M %Z}"
        if open_now:
            assert found == 0, story
        elif coming is not None:
            assert found == (coming - look).total_seconds(), story
        else:
            assert found is not None, story
            assert found > 1440 * 60, story


def check_hours(hours: DayHours, name: str, change: datetime, chance: random.Random) -> None:
    zone = ZoneInfo(name)
    minutes = minutes_around(change)
    opens = [m for m in minutes if held_by(hours, shown(m, zone))]
    for look in (change + chance.randrange(-600, 600) * MINUTE for _ in range(20)):
        coming = min((m for m in opens if m >= look), default=None)
        found = hours.open_in(look.timestamp(), zone)
        story = f"{hours} in {name} at {look.astimezone(zone):%F %H:%M %Z}"
        if coming is None:
            assert found is not None, story
            assert found > 1440 * 60, story
        else:
            assert found == (coming - look).total_seconds(), story


def check_zone(name: str, chance: random.Random, *, at_most: int) -> None:
    found = changes(name)
    for change in chance.sample(found, min(at_most, len(found))):
        for cron, length in CRONS if at_most > 1 else chance.sample(CRONS, 4):
            check_cron(cron, length, name, change, chance)
        for hours in HOURS if at_most > 1 else chance.sample(HOURS, 2):
            check_hours(hours, name, change, chance)


# what each is there for: an hour, half an hour (Lord Howe), two hours (Troll), midnight
# (Asuncion, Beirut), three quarters of an hour from UTC (Chatham), a month between two changes and
# back (Casablanca), a new zone for good (Pyongyang, Casey)
SOME = (
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Antarctica/Troll",
    "America/Asuncion",
    "Asia/Beirut",
    "Pacific/Chatham",
    "Africa/Casablanca",
    "Asia/Pyongyang",
    "Antarctica/Casey",
)


@pytest.mark.parametrize("name", SOME)
def test_a_window_opens_when_a_clock_on_the_wall_says_so(name: str) -> None:
    check_zone(name, random.Random(name), at_most=1)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("share", range(24))
def test_windows_in_every_zone_at_every_change_of_ten_years(share: int) -> None:
    alike: dict[tuple[datetime, ...], str] = {}
    for name in sorted(available_timezones()):
        alike.setdefault(changes(name), name)
    for name in sorted(alike.values())[share::24]:
        check_zone(name, random.Random(name), at_most=1000)


# --- what was wrong, one by one


@pytest.mark.parametrize("minute", range(0, 30, 10))
def test_an_open_window_is_open_in_the_repeated_hour_too(minute: int) -> None:
    """From 2:30 in summer time an hour on: up to 2:30 in winter time."""
    moment = at(f"2026-10-25T02:{minute:02}:00", fold=1)
    assert open_in("30 2 * * *", 3600, moment) == 0
    windows = {"windows": [{"cron": "30 2 * * *", "duration_s": 3600, "timezone": "device"}]}
    assert hold(windows, Environment(moment.timestamp(), zone="Europe/Berlin"), CHANGE) is None


def test_a_closed_window_does_not_open_in_a_second_for_an_hour() -> None:
    """A wait of one second had a process started every three."""
    for minute in range(0, 60, 5):
        waits = open_in("15 2 * * *", 1800, at(f"2026-10-25T02:{minute:02}:00", fold=1))
        assert waits
        assert waits > 80_000


@pytest.mark.parametrize("cron", ["0 2 * *", "* * * * * *", "61 2 * * *", ""])
def test_what_is_no_time_of_cron_holds(cron: str) -> None:
    windows = {"windows": [{"cron": cron, "duration_s": 3600, "timezone": "UTC"}]}
    found = hold(windows, Environment(at("2026-11-25T12:00:00").timestamp()), CHANGE)
    assert found
    assert "cannot be read" in found.sentence


def test_the_devices_own_hours_end_by_its_clock_on_the_night_that_it_changes() -> None:
    data = {"server": "http://127.0.0.1:1", "device": "cam-1", "data_dir": "."}
    limits = parse({**data, "limits": {"windows": ["22:00-06:00"]}}, base=Path("/")).limits

    def held(limits: OwnLimits, moment: datetime) -> bool:
        return (
            own_hold(limits, Environment(moment.timestamp(), zone="Europe/Berlin"), FETCH)
            is not None
        )

    for night in ("2026-10-25", "2026-03-29"):
        assert not held(limits, at(f"{night}T05:59:00"))
        assert held(limits, at(f"{night}T06:00:00"))
        assert held(limits, at(f"{night}T06:59:00"))
