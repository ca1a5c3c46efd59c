"""Read what powers the device, how warm it is and how busy: from sysfs and procfs.

Each fact is optional: a board without a battery has no battery fact. `root` stands in for `/`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pilotwave_agent.hardware.texts import text
from pilotwave_protocol.fields import Scalar

_LOWEST_C, _HIGHEST_C = -40, 150  # what lies outside is no sensor (a Jetson says -256 for "off")
_DUMMIES = ("pmic",)  # a Jetson's PMIC always says 100

_SLOWING = ("passive", "hot", "critical")
_NEAR = 3000  # thousandths of a degree
_LOW_PERCENT = 30


def power_facts(root: Path) -> dict[str, Scalar | None]:
    """Return battery (percent, in steps of 5) and power; a mouse's battery is none of ours."""
    facts: dict[str, Scalar | None] = {}
    levels: list[int] = []
    for supply in _folders(root / "sys/class/power_supply"):
        if text(supply / "scope") == "Device":
            continue
        kind = text(supply / "type")
        if kind == "Battery":
            level = _level(supply)
            levels += [] if level is None else [level]
            facts.setdefault("power", "battery")
            if text(supply / "status") in ("Charging", "Full", "Not charging"):
                facts["power"] = "mains"
        elif kind in ("Mains", "USB", "Wireless") and text(supply / "online") == "1":
            facts["power"] = "mains"
    if levels:
        facts["battery"] = min(levels) // 5 * 5
    return facts


def _level(supply: Path) -> int | None:
    """Return a battery's charge in percent, as it says or from what it holds and could hold."""
    level = text(supply / "capacity") or ""
    if level.isdecimal():
        return min(int(level), 100)
    for kind in ("energy", "charge"):
        now, full = text(supply / f"{kind}_now") or "", text(supply / f"{kind}_full") or ""
        if now.isdecimal() and full.isdecimal() and int(full):
            return min(int(now) * 100 // int(full), 100)
    return None


def temperature_c(root: Path) -> int | None:
    """Return the hottest thermal zone in whole degrees Celsius; None if there is no sensor."""
    found = list(_temperatures(root))
    return max(found) if found else None


def _temperatures(root: Path) -> Iterator[int]:
    for zone in _folders(root / "sys/class/thermal"):
        said = text(zone / "temp") or ""
        kind = (text(zone / "type") or "").lower()
        if not said.lstrip("-").isdecimal() or kind.startswith(_DUMMIES):
            continue
        degrees = int(said) // 1000
        if _LOWEST_C <= degrees <= _HIGHEST_C:
            yield degrees


def is_hot(root: Path) -> bool:
    """Say whether a thermal zone is at, or a few degrees below, where the kernel slows it down."""
    for zone in _folders(root / "sys/class/thermal"):
        now, trips = _number(zone / "temp"), []
        for trip in zone.glob("trip_point_*_type") if now is not None else ():
            if text(trip) in _SLOWING:
                trips.append(_number(trip.with_name(trip.name.replace("_type", "_temp"))))
        known = [t for t in trips if t is not None and t > 0]
        if now is not None and known and now >= min(known) - _NEAR:
            return True
    return False


def is_low(root: Path) -> bool:
    """Say whether the device runs on a battery that is low."""
    facts = power_facts(root)
    level = facts.get("battery")
    return facts.get("power") == "battery" and isinstance(level, int) and level < _LOW_PERCENT


def _number(path: Path) -> int | None:
    said = text(path) or ""
    return int(said) if said.lstrip("-").isdecimal() else None


def load(root: Path) -> float | None:
    """Return how many processes wanted a processor in the last minute, on average."""
    words = (text(root / "proc/loadavg") or "").split()
    try:
        return float(words[0])
    except (IndexError, ValueError):
        return None


def _folders(top: Path) -> list[Path]:
    return sorted(top.iterdir()) if top.is_dir() else []
