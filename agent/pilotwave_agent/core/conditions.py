"""Judge whether this device may change now: the conditions and windows that an order carries.

Pure: what the device is like comes in as a `Environment`. A condition holds an order back before it
begins to fetch, to test or to switch, as the table `_GATES` says; a switch that has begun, a
probation and a way back are never held. A condition that this agent does not know holds as well: an
older agent must not do what a newer server meant to forbid.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from pilotwave_agent.core.environment import Environment
from pilotwave_agent.core.shadow import is_readable
from pilotwave_agent.core.ties import TOGETHER, is_named
from pilotwave_agent.core.windows import BadWindow, open_in
from pilotwave_agent.settings.download_limits import OwnLimits
from pilotwave_protocol.figures import COMPARE
from pilotwave_protocol.shadow import SHADOW
from pilotwave_protocol.states import Reason

FETCH, CHANGE = "fetch", "change"
_GATES = {
    "power": {FETCH, CHANGE},
    "battery_min": {FETCH, CHANGE},
    "network": {FETCH},
    "disk_free_mb": {FETCH},
    "idle": {CHANGE},
    "windows": {CHANGE},
    TOGETHER: set(),  # `ties` judges it
    COMPARE: set(),  # `compare` reads it; it holds nothing back
    SHADOW: set(),  # `shadow` judges it
}
_READ_ELSEWHERE = {TOGETHER: is_named, SHADOW: is_readable}
_WATCHED = {
    "power": ("power",),
    "battery_min": ("battery", "power"),
    "network": ("network.metered",),
    "disk_free_mb": ("disk_free_mb",),
    "idle": ("busy",),
}


@dataclass(frozen=True)
class Hold:
    """A "not yet". `retry_s` is in how many seconds it ends by itself (None: unknown); `watch` are
    the facts whose change may end it."""

    reason: Reason
    sentence: str
    retry_s: float | None = None
    watch: tuple[str, ...] = ()


def hold(conditions: Mapping[str, Any], world: Environment, gate: str) -> Hold | None:
    """Return the first condition that holds an order back at a gate, None if none does."""
    return next(_holds(conditions, world, gate), None)


def own_hold(limits: OwnLimits, world: Environment, gate: str) -> Hold | None:
    """Return what the device's own settings hold back at a gate: fetching, or nothing."""
    if gate != FETCH:
        return None
    if limits.waits_on_metered and world.metered:
        return hold({"network": "unmetered"}, world, FETCH)
    if not limits.windows:
        return None
    zone, words = _zone("device", world.zone)
    return _until(
        [(hours.open_in(world.now, zone), zone, words) for hours in limits.windows], world
    )


def _holds(conditions: Mapping[str, Any], world: Environment, gate: str) -> Iterator[Hold]:
    for key, value in sorted(conditions.items()):
        if key not in _GATES:
            sentence = f"the order names the condition {key}, which this agent does not know"
            yield Hold(Reason.WAITING_CONDITION, f"{sentence}; update the agent"[:300])
        elif key in _READ_ELSEWHERE and not _READ_ELSEWHERE[key](value):
            sentence = f"the condition {key} cannot be read: {ascii(value)[:80]}"
            yield Hold(Reason.WAITING_CONDITION, sentence)
        elif gate in _GATES[key]:
            found = _judge(key, value, world)
            if found:
                yield found


def _judge(key: str, value: Any, world: Environment) -> Hold | None:
    try:
        if key == "windows":
            return _outside(value, world)
        found = _JUDGES[key](value, world)
    except (BadWindow, TypeError, ValueError, KeyError, AttributeError) as e:
        sentence = f"the condition {key} cannot be read: {ascii(value)[:80]}"
        return Hold(Reason.WAITING_CONDITION, f"{sentence} ({e})"[:300])
    return None if found is None else Hold(*found, watch=_WATCHED[key])


Found = tuple[Reason, str] | None


def _power(value: Any, world: Environment) -> Found:
    if value != "external":
        raise ValueError("expected external")
    if world.power != "battery":
        return None
    return Reason.WAITING_POWER, "waits for external power; the device runs on its battery"


def _battery(value: Any, world: Environment) -> Found:
    if world.battery is None or world.battery >= int(value):
        return None
    sentence = f"waits until the battery is at {int(value)} %; it is at {world.battery} %"
    return Reason.WAITING_BATTERY, sentence


def _network(value: Any, world: Environment) -> Found:
    if value != "unmetered":
        raise ValueError("expected unmetered")
    if world.metered is False:
        return None
    if world.metered:
        return Reason.WAITING_NETWORK, "waits for an unmetered network; this one is metered"
    words = "waits for an unmetered network; the device cannot tell whether this one is metered"
    return Reason.WAITING_NETWORK, f"{words} (set `metered`)"


def _disk(value: Any, world: Environment) -> Found:
    if world.disk_free_mb is None or world.disk_free_mb >= int(value):
        return None
    sentence = f"waits for {int(value)} MB of free disk; {world.disk_free_mb} MB are free"
    return Reason.WAITING_DISK, sentence


def _idle(value: Any, world: Environment) -> Found:
    if value is not True or world.busy is None:
        return None
    return Reason.WAITING_IDLE, f"waits until the device is idle; {world.busy}"


_JUDGES = {
    "power": _power,
    "battery_min": _battery,
    "network": _network,
    "disk_free_mb": _disk,
    "idle": _idle,
}


Opening = tuple[float | None, tzinfo, str]


def _outside(windows: Any, world: Environment) -> Hold | None:
    """Return the hold until the first of these windows opens; None if one is open."""
    found = []
    for window in windows:
        zone, words = _zone(str(window.get("timezone", "device")), world.zone)
        moment = datetime.fromtimestamp(world.now, zone)
        wait = open_in(str(window["cron"]), float(window["duration_s"]), moment)
        found.append((wait, zone, words))
    return _until(found, world) if found else None


def _until(openings: Sequence[Opening], world: Environment) -> Hold | None:
    """Return the hold until the first opening, 0 s being open now and None never."""
    coming = [(wait, zone, words) for wait, zone, words in openings if wait is not None]
    if not coming:
        return Hold(Reason.WAITING_WINDOW, "waits for a window, but none of them ever opens")
    wait, zone, words = min(coming, key=lambda found: found[0])
    if wait == 0:
        return None
    opens = datetime.fromtimestamp(world.now + wait, zone)
    sentence = f"waits for its window, which opens {opens:%Y-%m-%d %H:%M} ({words})"
    return Hold(Reason.WAITING_WINDOW, sentence, retry_s=wait)


def _zone(asked: str, own: str | None) -> tuple[tzinfo, str]:
    """Return a zone and its name; a device that does not know its own lives by UTC."""
    name = own if asked == "device" else asked
    if name is None:
        return timezone.utc, "UTC: this device does not know its time zone"
    try:
        return ZoneInfo(name), name
    except (OSError, ValueError, KeyError) as e:
        if asked == "device":
            return timezone.utc, f"UTC: {ascii(name)[:40]} is no time zone"
        raise BadWindow(f"{name} is no time zone") from e
