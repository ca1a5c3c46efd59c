"""What the device says of itself: flat facts by which the server chooses and operators select.

Nothing is imported to learn its version, and every fact is optional: a board without batteries has
no battery fact. Numbers that always move are rounded coarsely, so that facts seldom change.
"""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

from pilotwave_agent.runtimes import RUNTIMES
from pilotwave_protocol.fields import Scalar

_ARCHES = {"amd64": "x86_64", "arm64": "aarch64"}
_MAX_VALUE = 200


def read_facts(data_dir: Path, *, root: Path = Path("/")) -> dict[str, Scalar]:
    """Return this device's facts; `root` stands in for `/` where files are read."""
    machine = platform.machine().lower()
    facts: dict[str, Scalar | None] = {
        "arch": _ARCHES.get(machine, machine),
        "os": _os_name(root),
        "kernel": platform.release(),
        "cpu_count": os.cpu_count(),
        "memory_mb": _memory_mb(root),
        "disk_free_mb": _disk_free_mb(data_dir),
        "hw": _hardware(root),
        "python": platform.python_version(),
        "agent": _version(("pilotwave",)),
        "timezone": _timezone(root),
        **_power(root),
        **_network(root),
        **{f"runtime.{name}": _version(r.distributions) for name, r in RUNTIMES.items()},
    }
    return {key: _clean(value) for key, value in facts.items() if value not in (None, "")}


def agent_version() -> str:
    """Return this agent's version, as check-ins carry it."""
    return _version(("pilotwave",)) or "unknown"


def _clean(value: Scalar | None) -> Scalar:
    if not isinstance(value, str):
        return value if value is not None else ""
    return "".join(c for c in value if c.isprintable())[:_MAX_VALUE]


def _version(distributions: tuple[str, ...]) -> str | None:
    """Return the version of the first of these that is installed.

    It is read from the name of the `.dist-info` folder: `importlib.metadata` says the same for a
    megabyte of memory more.
    """
    wanted = [name.replace("-", "_") for name in distributions]
    found: dict[str, str] = {}
    for folder in sys.path:
        for name in _names(folder or "."):
            if name.endswith(".dist-info"):
                project, _, version = name.removesuffix(".dist-info").partition("-")
                found.setdefault(project.lower().replace(".", "_"), version)
    return next((found[name] for name in wanted if name in found), None)


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip(" \t\r\n\0")
    except OSError:
        return None


def _os_name(root: Path) -> str:
    for line in (_text(root / "etc/os-release") or "").splitlines():
        key, _, value = line.partition("=")
        if key == "PRETTY_NAME":
            return value.strip("\"'")
    return platform.system()


def _memory_mb(root: Path) -> int | None:
    """Return the machine's memory or the control group's limit, whichever is less."""
    total = None
    for line in (_text(root / "proc/meminfo") or "").splitlines():
        if line.startswith("MemTotal:"):
            total = int(line.split()[1]) // 1024
    for name in ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"):
        limit = _text(root / name) or ""
        if limit.isdecimal() and total is not None:
            total = min(total, int(limit) >> 20)
    return total


def _disk_free_mb(data_dir: Path) -> int | None:
    folder = data_dir
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    return coarse(found.f_bavail * found.f_frsize >> 20)


def coarse(number: int) -> int:
    """Round down to two binary digits: 1000 becomes 768."""
    shift = max(number.bit_length() - 2, 0)
    return number >> shift << shift


def _hardware(root: Path) -> str | None:
    board = _text(root / "proc/device-tree/model") or _text(root / "sys/class/dmi/id/product_name")
    if board:
        return board
    for line in (_text(root / "proc/cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Hardware"):
            return value.strip()
    return None


def _timezone(root: Path) -> str | None:
    named = _text(root / "etc/timezone")
    if named:
        return named
    try:
        target = os.readlink(root / "etc/localtime")
    except OSError:
        return None
    return target.partition("zoneinfo/")[2] or None


def _power(root: Path) -> dict[str, Scalar | None]:
    """Read batteries and mains; what powers a mouse is none of the device's."""
    facts: dict[str, Scalar | None] = {}
    folder = root / "sys/class/power_supply"
    for supply in sorted(folder.iterdir()) if folder.is_dir() else []:
        if _text(supply / "scope") == "Device":
            continue
        kind = _text(supply / "type")
        if kind == "Battery":
            level = _text(supply / "capacity") or ""
            facts["battery"] = int(level) // 5 * 5 if level.isdecimal() else None
            facts.setdefault("power", "battery")
            if _text(supply / "status") in ("Charging", "Full"):
                facts["power"] = "mains"
        elif kind in ("Mains", "USB") and _text(supply / "online") == "1":
            facts["power"] = "mains"
    return facts


def _network(root: Path) -> dict[str, Scalar | None]:
    """Say whether the default route leaves by a modem, which mostly means by the megabyte."""
    for line in (_text(root / "proc/net/route") or "").splitlines()[1:]:
        fields = line.split()
        if len(fields) > 1 and fields[1] == "00000000":
            return {"network.metered": fields[0].startswith(("wwan", "ppp", "rmnet", "usb"))}
    return {}
