"""`pilotwave-server install` and `uninstall`: the server as a system service, here or in an image.

The data folder is the fleet's memory: nothing here removes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from pilotwave_server.command_options import clear_errors, show
from pilotwave_server.systemd_unit import SETTINGS, Plan, unit_of
from pilotwave_systemd import install as systemd
from pilotwave_systemd.install import Service, System

SERVICE = Service("pilotwave-server")


def install_on(system: System, plan: Plan) -> Iterator[str]:
    """Write unit and user, have systemd take them; yield lines for a person. Doing it again brings
    an older unit up to date. Raises ServiceTrouble, CannotInstall."""
    yield from SERVICE.install(system, unit_of(plan))
    yield f"settings go into {SETTINGS}, as PILOTWAVE_WORKERS=2; its folder is yours to make"
    if system.has_systemd():
        yield f"a new fleet: install -d -m 700 -o {plan.user} {plan.data}, then"
        yield f"  runuser -u {plan.user} -- {plan.command[0]} init --data {plan.data} --fleet NAME"
        yield f"start it: systemctl restart {SERVICE.name}"
    else:
        init = f"pilotwave-server init --data {plan.data} --fleet NAME"
        yield f"{SERVICE.name} starts when this system does, after `{init}`"


def own_command() -> list[str]:
    """Return how this server is started."""
    return systemd.own_command("pilotwave-server", "pilotwave_server.start")


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
        typer.echo(SERVICE.text(unit_of(plan)), nl=False)
        return
    show(install_on(System.at(root), plan))


@clear_errors
def uninstall(root: Root = Path("/")) -> None:
    """Remove the service. The data folder stays."""
    show(SERVICE.uninstall(System.at(root)))
