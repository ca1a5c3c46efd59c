"""Read what bounds devices: pace, windows, conditions and deadlines."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from pilotwave_server.rollouts.policies.document import Conditions, Deadlines, Pace, Window
from pilotwave_server.rollouts.policies.faults import Wrong, show
from pilotwave_server.rollouts.policies.kinds import (
    flag,
    number,
    share,
    text,
    whole,
    whole_percent,
    word,
)
from pilotwave_server.rollouts.policies.section import Section

MAX_WINDOWS = 8
WEEK = 7 * 86_400
MOST_DEVICES = 100_000_000
DEVICE_ZONE = "device"
_ITEM = r"(?:[0-9]{1,2}|[A-Z]{3})"
_TERM = rf"(?:\*|{_ITEM}(?:-{_ITEM})?)(?:/[0-9]{{1,2}})?"
_FIELD = rf"{_TERM}(?:,{_TERM})*"
# the part of cron that every implementation reads alike
_CRON = re.compile(rf"{_FIELD}(?: {_FIELD}){{4}}")


def read_pace(top: Section) -> Pace:
    """Return how fast devices are let in."""
    keys = ("max_in_flight", "max_per_minute", "ramp_start", "ramp_factor", "min_available")
    part = _part(top, "pace", keys)
    most = whole(1, MOST_DEVICES)
    if part.has("ramp_factor") and not part.has("ramp_start") and part.value["ramp_factor"] != 2.0:
        part.faults.add(part.at("ramp_factor"), "expected `ramp_start` beside it")
    return Pace(
        max_in_flight=part.take("max_in_flight", most, None),
        max_per_minute=part.take("max_per_minute", most, None),
        ramp_start=part.take("ramp_start", most, None),
        ramp_factor=part.take("ramp_factor", number(1, 100), Pace.ramp_factor),
        min_available=part.take("min_available", share(0, 0.999999), Pace.min_available),
    )


def read_conditions(top: Section) -> Conditions:
    """Return what must hold on a device."""
    keys = ("power", "battery_min", "network", "idle", "disk_free_mb")
    part = _part(top, "conditions", keys)
    return Conditions(
        power=part.take("power", word("external"), None),
        battery_min=part.take("battery_min", whole_percent, None),
        network=part.take("network", word("unmetered"), None),
        idle=part.take("idle", flag, None),
        disk_free_mb=part.take("disk_free_mb", whole(1, 100_000_000), None),
    )


def read_deadlines(top: Section) -> Deadlines:
    """Return how long devices are waited for."""
    part = _part(top, "deadlines", (), durations=("silent", "lease", "unreached"))
    return Deadlines(
        silent_s=part.duration("silent", Deadlines.silent_s, low=60),
        lease_s=part.duration("lease", Deadlines.lease_s, low=60),
        unreached_s=part.duration("unreached", None, low=60),
    )


def read_windows(top: Section) -> tuple[Window, ...]:
    """Return when devices may change; any of them will do."""
    windows = []
    for item, path in top.items("windows", MAX_WINDOWS):
        keys = ("cron", "timezone")
        part = Section(top.faults, item, path, keys=keys, durations=("duration",))
        if not part.has("duration") and not part.has("duration_s"):
            part.faults.add(part.at("duration"), "expected a value; it is missing")
        windows.append(
            Window(
                cron=part.need("cron", _cron, ""),
                duration_s=part.duration("duration", 0, low=60, high=WEEK),
                timezone=part.take("timezone", _zone, DEVICE_ZONE),
            )
        )
    return tuple(windows)


def _part(
    top: Section, key: str, keys: tuple[str, ...], durations: tuple[str, ...] = ()
) -> Section:
    value = top.value.get(key, {})
    return Section(top.faults, value, top.at(key), keys=keys, durations=durations)


def _cron(value: Any) -> str:
    found = text(120)(value)
    if not _CRON.fullmatch(found):
        raise Wrong(
            "expected the five fields of cron (minute, hour, day, month, weekday), as "
            f"`0 2 * * *`; got {show(value)}"
        )
    try:
        next(CronSim(found, datetime(2024, 1, 1, tzinfo=timezone.utc)))
    except CronSimError as error:
        raise Wrong(f"expected a time of cron, as `0 2 * * *`; {error} in {show(value)}") from None
    except StopIteration:
        raise Wrong(f"expected a time that comes; {show(value)} never does") from None
    return found


def _zone(value: Any) -> str:
    found = text(64)(value)
    if found != DEVICE_ZONE:
        try:
            ZoneInfo(found)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise Wrong(
                f"expected `device`, or a zone as `Europe/Berlin`; got {show(value)}"
            ) from None
    return found
