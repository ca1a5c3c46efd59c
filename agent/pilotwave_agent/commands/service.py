"""Install the agent as a system service and take it away again, on this system or in an image.

With `root` other than `/` only files are written, as for a disk image that is being made. On the
running system systemd is told as well. The data folder is the device's memory: it stays unless it
is asked to go.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pilotwave_agent.commands.systemd_unit import NAME, Plan, sysusers_of, unit_of
from pilotwave_agent.host.disk import Disk
from pilotwave_agent.self_update import launch
from pilotwave_agent.settings import config as settings
from pilotwave_agent.settings.config import BadConfig, Config
from pilotwave_protocol.errors import PilotwaveError

_UNITS = Path("etc/systemd/system")
_SYSUSERS = Path("etc/sysusers.d/pilotwave-agent.conf")
_WANTS = _UNITS / "multi-user.target.wants" / NAME
_MARK = "# Written by `pilotwave-agent install`; `pilotwave-agent uninstall` removes it.\n"
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,30}")
# groups that own the device nodes of accelerators; those that a system has not are left out
_GROUPS = ("video", "render", "plugdev", "apex")
_WATCHDOG_S = {"standard": 300, "battery": 7200}

Run = Callable[[Sequence[str]], None]


class ServiceTrouble(PilotwaveError):
    """The service cannot be installed or removed; the sentence says what to do."""

    code = "service_trouble"


def run_program(command: Sequence[str]) -> None:
    """Run a program of the system; raise `ServiceTrouble` if it says no."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as e:
        raise ServiceTrouble(f"{command[0]}: {e.strerror}") from e
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split())[:300]
        raise ServiceTrouble(f"`{' '.join(command)}` ended with {done.returncode}: {said}")


@dataclass(frozen=True)
class System:
    """The system to install on: its root, and how its programs are run (None: it does not run)."""

    root: Path = Path("/")
    run: Run | None = run_program
    disk: Disk = field(default_factory=Disk)

    @classmethod
    def at(cls, root: Path) -> System:
        """Return this machine for `/`, an image for anything else."""
        return cls(root, run_program if root == Path("/") else None)

    def tell(self, *command: str) -> None:
        """Run a program, if this system runs."""
        if self.run is not None:
            self.run(command)

    def has_systemd(self) -> bool:
        """Say whether systemd is there to be told."""
        return self.run is not None and (self.root / "run/systemd/system").is_dir()


def install(
    system: System, config_path: Path, *, user: str, command: Sequence[str], start: bool = True
) -> Iterator[str]:
    """Write unit and user, have systemd take them; yield lines for a person.

    `config_path` is as the installed system sees it. Doing it again brings an older unit up to
    date. Raises `ServiceTrouble`, `BadConfig`.
    """
    _allowed(system)
    plan = _plan(system, config_path, user=user, command=command)
    for path, words in _texts(plan).items():
        _write(system, path, words)
        yield f"wrote {Path('/') / path}"
    if not system.has_systemd():
        _link(system)
        yield f"{NAME} starts when this system does"
        return
    _make_user(system, user)
    system.tell("systemctl", "daemon-reload")
    system.tell("systemctl", "enable", NAME)
    if start:
        system.tell("systemctl", "restart", NAME)
        yield f"{NAME} runs as {user}; see it with: systemctl status {NAME}"
    else:
        yield f"start it with: systemctl start {NAME}"


def planned(system: System, config_path: Path, *, user: str, command: Sequence[str]) -> str:
    """Return the unit as `install` would write it."""
    return _MARK + unit_of(_plan(system, config_path, user=user, command=command))


def _plan(system: System, config_path: Path, *, user: str, command: Sequence[str]) -> Plan:
    config = _settings(system, config_path)
    if not _USER.fullmatch(user):
        raise ServiceTrouble(f"--user: expected a name like pilotwave; got {ascii(user)[:40]}")
    groups = _groups(system.root)
    watchdog_s = _WATCHDOG_S[config.profile]
    return Plan(command, own_launcher(), config.data_dir, config_path, user, watchdog_s, groups)


def _texts(plan: Plan) -> dict[Path, str]:
    return {_UNITS / NAME: unit_of(plan), _SYSUSERS: sysusers_of(plan)}


def uninstall(system: System, *, purge: Path | None = None) -> Iterator[str]:
    """Stop the service and remove all that `install` wrote; with `purge`, that data folder too."""
    _allowed(system)
    there = system.root / _UNITS / NAME
    if system.has_systemd() and there.exists():
        system.tell("systemctl", "disable", "--now", NAME)
    for path in (_WANTS, _UNITS / NAME, _SYSUSERS):
        if _remove(system, path):
            yield f"removed {Path('/') / path}"
    if system.has_systemd():
        system.tell("systemctl", "daemon-reload")
    if purge is not None:
        folder = _below(system.root, purge)
        if not (folder / "identity").is_dir():
            raise ServiceTrouble(f"{purge}: this is no data folder of an agent; nothing is removed")
        shutil.rmtree(folder)
        yield f"removed {purge}: this device must be enrolled anew"


def own_command() -> list[str]:
    """Return how this agent is started: the script beside the interpreter, or the module."""
    script = Path(sys.executable).parent / "pilotwave-agent"
    return [str(script)] if script.exists() else [sys.executable, "-m", "pilotwave_agent.cli"]


def own_launcher() -> list[str]:
    """Return how this agent's launcher is started: by its path, by the interpreter alone."""
    return [sys.executable, "-I", launch.__file__]


def _allowed(system: System) -> None:
    if system.run is run_program and os.geteuid() != 0:
        raise ServiceTrouble("only root may do that; run it with sudo")


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


def _write(system: System, path: Path, words: str) -> None:
    target = system.root / path
    if target.exists() and not target.read_text(errors="replace").startswith(_MARK):
        raise ServiceTrouble(f"{target}: someone else wrote this file; move it away first")
    try:
        system.disk.make_dirs(target.parent)
        system.disk.write_atomic(target, (_MARK + words).encode(), 0o644)
    except OSError as e:
        hint = "remount it writable for the installation, or build it into the image with --root"
        raise ServiceTrouble(f"{target}: {e.strerror}; {hint}") from e


def _link(system: System) -> None:
    link = system.root / _WANTS
    system.disk.make_dirs(link.parent)
    system.disk.point(link, f"../{NAME}")


def _remove(system: System, path: Path) -> bool:
    target = system.root / path
    if target.is_symlink():
        target.unlink()
        return True
    if not target.exists():
        return False
    if not target.read_text(errors="replace").startswith(_MARK):
        raise ServiceTrouble(f"{target}: someone else wrote this file; it is left alone")
    system.disk.unlink(target)
    return True


def _groups(root: Path) -> tuple[str, ...]:
    try:
        words = (root / "etc/group").read_text(errors="replace").splitlines()
    except OSError:
        return ()
    known = {line.partition(":")[0] for line in words}
    return tuple(name for name in _GROUPS if name in known)


def _make_user(system: System, user: str) -> None:
    try:
        pwd.getpwnam(user)
        return
    except KeyError:
        pass
    if shutil.which("systemd-sysusers"):
        system.tell("systemd-sysusers", str(system.root / _SYSUSERS))
    else:
        system.tell("useradd", "--system", "--no-create-home", "--shell", "/bin/false", user)
