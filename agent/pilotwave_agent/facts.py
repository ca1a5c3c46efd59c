"""What the device says of itself: flat facts by which the server chooses and operators select.

Nothing is imported to learn its version, and every fact is optional: a board without batteries has
no battery fact. Numbers that always move are rounded coarsely, so that facts seldom change.
"""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pilotwave_agent.hardware import board, power
from pilotwave_agent.hardware.accelerators import accelerator_facts
from pilotwave_agent.hardware.network import metered
from pilotwave_agent.hardware.texts import text
from pilotwave_agent.host.layout import Layout
from pilotwave_agent.runtimes.installed import runtime_facts, site_packages, version_of
from pilotwave_agent.said_facts import said_facts
from pilotwave_agent.self_update.launch import PYTHON
from pilotwave_agent.self_update.slots import running
from pilotwave_protocol.build import build_of
from pilotwave_protocol.fields import Scalar
from pilotwave_protocol.manifest import NEWEST_SCHEMA
from pilotwave_protocol.messages.directive import MAX_ENTRIES
from pilotwave_protocol.messages.facts import (
    AGENT_COMPARES,
    AGENT_HIDES,
    AGENT_LONGEST,
    AGENT_MANIFEST,
    AGENT_OVERLAYS,
    AGENT_PROFILE,
    AGENT_SHADOWS,
    AGENT_TIES,
    AGENT_UPDATES,
)

if TYPE_CHECKING:
    from pilotwave_agent.settings.config import Config, RuntimeSettings

_ARCHES = {"amd64": "x86_64", "arm64": "aarch64"}
_MAX_VALUE = 200
_DAY_S = 86_400  # a server asks for no longer interval


def facts_of(config: Config, *, root: Path = Path("/")) -> dict[str, Scalar]:
    """Return the facts of the device with these settings, without those that they hide."""
    said = said_facts(config.facts, Layout(config.data_dir).said_facts)
    own = {**said, **own_facts(config)}
    found = read_facts(config.data_dir, root=root, own=own, runtimes=config.runtimes)
    return {key: value for key, value in found.items() if key not in config.facts.hide}


def read_facts(
    data_dir: Path,
    *,
    root: Path = Path("/"),
    own: Mapping[str, Scalar] | None = None,
    runtimes: Mapping[str, RuntimeSettings] | None = None,
) -> dict[str, Scalar]:
    """Return this device's facts; `root` stands in for `/` where files are read.

    `own` are those that its settings say: they stand before what was found. `runtimes` name
    interpreters of their own.
    """
    facts: dict[str, Scalar | None] = {
        "arch": arch(),
        "os": _os_name(root),
        "kernel": platform.release(),
        "cpu_count": os.cpu_count(),
        "memory_mb": board.memory_mb(root),
        "disk_free_mb": _disk_free_mb(data_dir),
        "hw": board.hardware(root),
        "python": platform.python_version(),
        "agent": version_of(("pilotwave",)),
        "timezone": timezone_name(root),
        "network.metered": metered(root),
        "temperature_c": _tens(power.temperature_c(root)),
        **power.power_facts(root),
        "cpu.model": board.cpu_model(root),
        **board.cpu_flags(root),
        **board.jetson_facts(root),
        **accelerator_facts(root),
        **runtime_facts(runtimes or {}, root),
        "selftest.confinement": text(Layout(data_dir).confinement),
        **(own or {}),
        "max_models": MAX_ENTRIES,
    }
    return {key: _clean(value) for key, value in facts.items() if value not in (None, "")}


def arch() -> str:
    """Return the kind of processor in the word that manifests use: `x86_64`, `aarch64`."""
    machine = platform.machine().lower()
    return _ARCHES.get(machine, machine)


def _tens(number: int | None) -> int | None:
    return None if number is None else number // 10 * 10


def agent_version() -> str:
    """Return this agent's version and build, as check-ins carry them: `0.1.0+3f2a9c1e`."""
    version = version_of(("pilotwave",)) or "unknown"
    return f"{version}+{build_of('pilotwave_agent', 'pilotwave_protocol', 'pilotwave_systemd')}"


def _clean(value: Scalar | None) -> Scalar:
    if not isinstance(value, str):
        return value if value is not None else ""
    return "".join(c for c in value if c.isprintable())[:_MAX_VALUE]


def _os_name(root: Path) -> str:
    for line in (text(root / "etc/os-release") or "").splitlines():
        key, _, value = line.partition("=")
        if key == "PRETTY_NAME":
            return value.strip("\"'")
    return platform.system()


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


def own_facts(config: Config) -> dict[str, Scalar]:
    """Return what a device's settings say of it, which stands before what is found."""
    said: dict[str, Scalar | None] = {
        "network.metered": config.metered,
        "timezone": config.timezone or None,
        "allow_unsafe_formats": config.allow_unsafe_formats,
        "removes_models": config.allow_removal,
        AGENT_TIES: True,
        AGENT_COMPARES: True,
        AGENT_SHADOWS: True,
        AGENT_MANIFEST: NEWEST_SCHEMA,
        **_updates(config),
        AGENT_HIDES: " ".join(sorted(config.facts.hide)) or None,
        AGENT_OVERLAYS: _overlays(config) or None,
        AGENT_PROFILE: "battery" if config.profile == "battery" else None,
        AGENT_LONGEST: _longest_s(config),
    }
    return {key: value for key, value in said.items() if value is not None}


def _overlays(config: Config) -> str:
    """Name the models to whose scores this device adds something of its own."""
    layout = Layout(config.data_dir)
    if not (config.learn.adapt and layout.models.is_dir()):
        return ""
    models = sorted(os.listdir(layout.models))
    return " ".join(model for model in models if layout.overlay(model).is_symlink())


def _updates(config: Config) -> dict[str, Scalar | None]:
    """Say whether this agent can replace itself, and by wheels where pip can install them."""
    python = os.environ.get(PYTHON, "")
    if not (config.self_update and running() and python):
        return {}
    pip = version_of(("pip",), site_packages(Path(python)))
    return {AGENT_UPDATES: True, "runtime.wheelhouse": pip}


def _longest_s(config: Config) -> int | None:
    """Return what the settings cap the check-in interval at; None: at no less than any server's."""
    longest = config.max_check_in_interval_s
    return math.ceil(longest) if longest < _DAY_S else None


def timezone_name(root: Path) -> str | None:
    """Return the IANA name of the zone that the machine is set to."""
    named = text(root / "etc/timezone")
    if named:
        return named
    try:
        target = os.readlink(root / "etc/localtime")
    except OSError:
        return None
    return target.partition("zoneinfo/")[2] or None
