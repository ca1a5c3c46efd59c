"""Install a service and take it away again, on this system or in an image.

With a root other than `/` only files are written, as for a disk image that is being made. On the
running system systemd is told as well. Nothing here touches a data folder.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pilotwave_protocol.errors import PilotwaveError
from pilotwave_systemd.unit import Unit, sysusers_text, unit_text

_UNITS = Path("etc/systemd/system")
_WANTS = _UNITS / "multi-user.target.wants"
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

    @classmethod
    def at(cls, root: Path) -> System:
        """Return this machine for `/`, an image for anything else."""
        return cls(root, run_program if root == Path("/") else None)

    def require_root(self) -> None:
        """Raise `ServiceTrouble` for anyone but root, on this machine."""
        if self.run is run_program and os.geteuid() != 0:
            raise ServiceTrouble("only root may do that; run it with sudo")

    def tell(self, *command: str) -> None:
        """Run a program, if this system runs."""
        if self.run is not None:
            self.run(command)

    def has_systemd(self) -> bool:
        """Say whether systemd is there to be told."""
        return self.run is not None and (self.root / "run/systemd/system").is_dir()


@dataclass(frozen=True)
class Service:
    """A service's files; `program` is the command that writes them: `pilotwave-agent`."""

    program: str

    @property
    def name(self) -> str:
        """The unit's name."""
        return f"{self.program}.service"

    @property
    def unit(self) -> Path:
        """The unit, below a root; so are all paths here."""
        return _UNITS / self.name

    @property
    def wants(self) -> Path:
        """The link that has it started with the system."""
        return _WANTS / self.name

    @property
    def sysusers(self) -> Path:
        """What makes its user."""
        return Path(f"etc/sysusers.d/{self.program}.conf")

    @property
    def mark(self) -> str:
        """The line by which a file is known to be ours."""
        return f"# Written by `{self.program} install`; `{self.program} uninstall` removes it.\n"

    def text(self, unit: Unit) -> str:
        """Return the unit as `install` writes it. Raises `CannotInstall`."""
        return self.mark + unit_text(unit)

    def install(self, system: System, unit: Unit) -> Iterator[str]:
        """Write unit and user and have them take effect; yield lines for a person. Doing it again
        brings an older unit up to date. Raises `ServiceTrouble`, `CannotInstall`."""
        system.require_root()
        texts = {self.unit: self.text(unit), self.sysusers: self.mark + sysusers_text(unit)}
        for path, words in texts.items():
            self._write(system.root / path, words)
            yield f"wrote {Path('/') / path}"
        if system.has_systemd():
            _make_user(system, unit.user, self.sysusers)
            system.tell("systemctl", "daemon-reload")
            system.tell("systemctl", "enable", self.name)
        else:
            link = system.root / self.wants
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(f"../{self.name}")

    def uninstall(self, system: System) -> Iterator[str]:
        """Stop the service and remove all that `install` wrote. Raises `ServiceTrouble`."""
        system.require_root()
        if system.has_systemd() and (system.root / self.unit).exists():
            self._require_ours(system.root / self.unit)
            system.tell("systemctl", "disable", "--now", self.name)
        for path in (self.wants, self.unit, self.sysusers):
            there = system.root / path
            if there.is_symlink() or there.exists():
                if not there.is_symlink():
                    self._require_ours(there)
                there.unlink()
                yield f"removed {Path('/') / path}"
        if system.has_systemd():
            system.tell("systemctl", "daemon-reload")

    def _require_ours(self, path: Path) -> None:
        if path.exists() and not path.read_text(errors="replace").startswith(self.mark):
            raise ServiceTrouble(f"{path}: someone else wrote this file; move it away first")

    def _write(self, path: Path, words: str) -> None:
        self._require_ours(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
                file.write(words)
                os.fchmod(file.fileno(), 0o644)
                file.flush()
                os.fsync(file.fileno())
            os.replace(file.name, path)
        except OSError as e:
            hint = (
                "remount it writable for the installation, or build it into the image with --root"
            )
            raise ServiceTrouble(f"{path}: {e.strerror}; {hint}") from e


def own_command(program: str, module: str) -> list[str]:
    """Return how this program is started: the script beside the interpreter, or the module."""
    script = Path(sys.executable).parent / program
    return [str(script)] if script.exists() else [sys.executable, "-m", module]


def _make_user(system: System, user: str, sysusers: Path) -> None:
    try:
        pwd.getpwnam(user)
        return
    except KeyError:
        pass
    if shutil.which("systemd-sysusers"):
        system.tell("systemd-sysusers", str(system.root / sysusers))
    else:
        system.tell("useradd", "--system", "--no-create-home", "--shell", "/bin/false", user)
