"""Install the agent as a system service and take it away again, on this system or in an image.

The data folder is the device's memory: it stays unless it is asked to go.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from pilotwave_agent.commands.systemd_unit import Plan, unit_of
from pilotwave_agent.self_update import launch
from pilotwave_agent.settings import config as settings
from pilotwave_agent.settings.config import BadConfig, Config
from pilotwave_systemd import install as systemd
from pilotwave_systemd.install import Service, ServiceTrouble, System

SERVICE = Service("pilotwave-agent")
# groups that own the device nodes of accelerators; those that a system has not are left out
_GROUPS = ("video", "render", "plugdev", "apex")
_WATCHDOG_S = {"standard": 300, "battery": 7200}


def install(
    system: System, config_path: Path, *, user: str, command: Sequence[str], start: bool = True
) -> Iterator[str]:
    """Write unit and user, have systemd take them; yield lines for a person.

    `config_path` is as the installed system sees it. Doing it again brings an older unit up to
    date. Raises `ServiceTrouble`, `CannotInstall`, `BadConfig`.
    """
    system.require_root()
    plan = _plan(system, config_path, user=user, command=command)
    yield from SERVICE.install(system, unit_of(plan))
    if not system.has_systemd():
        yield f"{SERVICE.name} starts when this system does"
    elif start:
        system.tell("systemctl", "restart", SERVICE.name)
        yield f"{SERVICE.name} runs as {user}; see it with: systemctl status {SERVICE.name}"
    else:
        yield f"start it with: systemctl start {SERVICE.name}"


def planned(system: System, config_path: Path, *, user: str, command: Sequence[str]) -> str:
    """Return the unit as `install` would write it."""
    return SERVICE.text(unit_of(_plan(system, config_path, user=user, command=command)))


def _plan(system: System, config_path: Path, *, user: str, command: Sequence[str]) -> Plan:
    config = _settings(system, config_path)
    groups = _groups(system.root)
    watchdog_s = _WATCHDOG_S[config.profile]
    return Plan(command, own_launcher(), config.data_dir, config_path, user, watchdog_s, groups)


def uninstall(system: System, *, purge: Path | None = None) -> Iterator[str]:
    """Stop the service and remove all that `install` wrote; with `purge`, that data folder too."""
    yield from SERVICE.uninstall(system)
    if purge is not None:
        folder = _below(system.root, purge)
        if not (folder / "identity").is_dir():
            raise ServiceTrouble(f"{purge}: this is no data folder of an agent; nothing is removed")
        shutil.rmtree(folder)
        yield f"removed {purge}: this device must be enrolled anew"


def own_command() -> list[str]:
    """Return how this agent is started."""
    return systemd.own_command("pilotwave-agent", "pilotwave_agent.cli")


def own_launcher() -> list[str]:
    """Return how this agent's launcher is started: by its path, by the interpreter alone."""
    return [sys.executable, "-I", launch.__file__]


def _below(root: Path, path: Path) -> Path:
    return root / path.relative_to("/") if path.is_absolute() else root / path


def _settings(system: System, config_path: Path) -> Config:
    """Read the settings where they lie below the root; paths in them are the system's own."""
    if not config_path.is_absolute():
        raise BadConfig(f"{config_path}: expected an absolute path")
    where = _below(system.root, config_path)
    if system.root != Path("/") and not where.exists():
        # `enrol` writes them, on the device that the image is for
        return Config(server="", device="", data_dir=config_path.parent)
    found = settings.load(where)
    if system.root == Path("/") or not found.data_dir.is_relative_to(where.parent):
        return found
    # a relative data_dir was taken from where the file lies now
    inside = config_path.parent / found.data_dir.relative_to(where.parent)
    return replace(found, data_dir=inside)


def _groups(root: Path) -> tuple[str, ...]:
    try:
        words = (root / "etc/group").read_text(errors="replace").splitlines()
    except OSError:
        return ()
    known = {line.partition(":")[0] for line in words}
    return tuple(name for name in _GROUPS if name in known)
