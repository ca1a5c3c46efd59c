"""`pilotwave-server install` and `uninstall`: the server as a system service, here or in an image.

With `--root` other than `/` only files are written. On the running system systemd is told as well.
The data folder is the fleet's memory: nothing here removes it.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from pilotwave_server.command_options import clear_errors, show
from pilotwave_server.errors import SetupError
from pilotwave_server.systemd_unit import NAME, SETTINGS, Plan, sysusers_of, unit_of

UNIT = Path("etc/systemd/system") / NAME
WANTS = Path("etc/systemd/system/multi-user.target.wants") / NAME
SYSUSERS = Path("etc/sysusers.d/pilotwave-server.conf")
MARK = "# Written by `pilotwave-server install`; `pilotwave-server uninstall` removes it.\n"
USER = re.compile(r"[a-z_][a-z0-9_-]{0,30}")
Run = Callable[[Sequence[str]], None]


class ServiceTrouble(SetupError):
    """The service cannot be installed or removed; the sentence says what to do."""

    code: ClassVar[str] = "service_trouble"


def run_program(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise ServiceTrouble(f"{command[0]}: {error.strerror}") from error
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
        if self.run is run_program and os.geteuid() != 0:
            raise ServiceTrouble("only root may do that; run it with sudo")

    def has_systemd(self) -> bool:
        return self.run is not None and (self.root / "run/systemd/system").is_dir()

    def tell(self, *command: str) -> None:
        if self.run is not None:
            self.run(command)


def install_on(system: System, plan: Plan) -> Iterator[str]:
    """Write unit and user, have systemd take them; yield lines for a person. Doing it again brings
    an older unit up to date. Raises ServiceTrouble, CannotInstall."""
    system.require_root()
    for path, words in ((UNIT, planned(plan)), (SYSUSERS, MARK + sysusers_of(plan))):
        _write(system.root / path, words)
        yield f"wrote {Path('/') / path}"
    yield f"settings go into {SETTINGS}, as PILOTWAVE_WORKERS=2; its folder is yours to make"
    init = f"pilotwave-server init --data {plan.data} --fleet NAME"
    if system.has_systemd():
        if not _has_user(plan.user):
            system.tell("systemd-sysusers", str(system.root / SYSUSERS))
        system.tell("systemctl", "daemon-reload")
        system.tell("systemctl", "enable", NAME)
        yield f"a new fleet: install -d -m 700 -o {plan.user} {plan.data}, then"
        words = init.replace("pilotwave-server", plan.command[0], 1)
        yield f"  runuser -u {plan.user} -- {words}"
        yield f"start it: systemctl restart {NAME}"
    else:
        link = system.root / WANTS
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(f"../{NAME}")
        yield f"{NAME} starts when this system does, after `{init}`"


def uninstall_from(system: System) -> Iterator[str]:
    """Stop the service and remove all that `install` wrote."""
    system.require_root()
    if system.has_systemd() and (system.root / UNIT).exists():
        _require_ours(system.root / UNIT)
        system.tell("systemctl", "disable", "--now", NAME)
    for path in (WANTS, UNIT, SYSUSERS):
        there = system.root / path
        if there.is_symlink() or there.exists():
            if not there.is_symlink():
                _require_ours(there)
            there.unlink()
            yield f"removed {Path('/') / path}"
    if system.has_systemd():
        system.tell("systemctl", "daemon-reload")


def planned(plan: Plan) -> str:
    """Return the unit as `install` would write it."""
    if not USER.fullmatch(plan.user):
        raise ServiceTrouble(f"--user: expected a name like pilotwave; got {ascii(plan.user)[:40]}")
    return MARK + unit_of(plan)


def own_command() -> list[str]:
    """How this server is started: the script beside the interpreter, or the module."""
    script = Path(sys.executable).parent / "pilotwave-server"
    return [str(script)] if script.exists() else [sys.executable, "-m", "pilotwave_server.start"]


def _has_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _require_ours(path: Path) -> None:
    if path.exists() and not path.read_text(errors="replace").startswith(MARK):
        raise ServiceTrouble(f"{path}: someone else wrote this file; it is left alone")


def _write(path: Path, words: str) -> None:
    _require_ours(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
            file.write(words)
            file.flush()
            os.fsync(file.fileno())
        Path(file.name).chmod(0o644)
        shutil.move(file.name, path)
    except OSError as error:
        raise ServiceTrouble(f"{path}: {error.strerror}") from error


Root = Annotated[Path, typer.Option("--root", help="Image to install into, instead of here.")]


@clear_errors
def install(
    data: Annotated[Path, typer.Option("--data", help="Folder of database, blobs and keys.")] = (
        Path("/var/lib/pilotwave-server")
    ),
    user: Annotated[str, typer.Option(help="The service's user.")] = "pilotwave-server",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8600,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate: answer HTTPS.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Key of the certificate.")] = None,
    root: Root = Path("/"),
    print_only: Annotated[
        bool, typer.Option("--print", "--dry-run", help="Print the unit; write nothing.")
    ] = False,
) -> None:
    """Install the server as a systemd service with a user of its own."""
    plan = Plan(own_command(), data, user, host, port, tls_cert, tls_key)
    if print_only:
        typer.echo(planned(plan), nl=False)
        return
    show(install_on(System.at(root), plan))


@clear_errors
def uninstall(root: Root = Path("/")) -> None:
    """Remove the service. The data folder stays."""
    show(uninstall_from(System.at(root)))
