"""Look around for the conditions of orders: power, network, room on the disk, how busy it is.

The application says that it is busy by a file `busy` in the data folder; beside that the machine
counts as busy when, over the last minute, more than half of its processors were wanted.
"""

from __future__ import annotations

import os
from pathlib import Path

from pilotwave_agent.core.environment import Environment
from pilotwave_agent.facts import coarse, own_facts, timezone_name
from pilotwave_agent.hardware.network import metered
from pilotwave_agent.hardware.power import load, power_facts
from pilotwave_agent.settings.config import Config
from pilotwave_protocol.fields import Scalar

_BUSY_SHARE = 0.5


def look_around(config: Config, now: float, *, root: Path = Path("/")) -> Environment:
    """Return what the device is like; `now` in epoch seconds, `root` stands in for `/`."""
    own = own_facts(config)
    power = {**power_facts(root), **own}
    level, kind = power.get("battery"), power.get("power")
    return Environment(
        now=now,
        power=str(kind) if kind else None,
        battery=level if isinstance(level, int) else None,
        metered=metered(root) if config.metered is None else config.metered,
        disk_free_mb=_free_mb(config.data_dir),
        busy=_busy(config.data_dir, root),
        zone=config.timezone or timezone_name(root),
    )


def told(world: Environment) -> dict[str, Scalar | None]:
    """Return what of it may end a hold, by the names that `Hold.watch` uses, rounded coarsely."""
    free = world.disk_free_mb
    return {
        "power": world.power,
        "battery": world.battery,
        "network.metered": world.metered,
        "disk_free_mb": None if free is None else coarse(free),
        "busy": world.busy is not None,
    }


def _free_mb(folder: Path) -> int | None:
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize >> 20


def _busy(data_dir: Path, root: Path) -> str | None:
    if (data_dir / "busy").exists():
        return "the application says that it is busy"
    now, processors = load(root), os.cpu_count() or 1
    if now is not None and now > processors * _BUSY_SHARE:
        return "its processors are"
    return None
