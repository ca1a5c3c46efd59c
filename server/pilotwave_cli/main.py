"""`pilotwave`: publish versions, assign them to groups, watch and roll back devices.

It gathers the commands and turns every error into one line and an exit status: 1 refused or
failed, 2 called or set up wrongly.
"""

from __future__ import annotations

import sys
from importlib.metadata import version as installed
from typing import Annotated

import typer

from pilotwave_cli import (
    attention,
    audit,
    bytes_and_sites,
    captures,
    codes,
    deltas,
    device_logs,
    events,
    groups,
    login,
    models,
    people,
    policies,
    rollouts,
    tokens,
    versions,
    webhooks,
)
from pilotwave_cli.calibrate import command as calibrate
from pilotwave_cli.errors import CliError
from pilotwave_cli.keys import commands as keys
from pilotwave_cli.learn import commands as learn
from pilotwave_cli.optimize import command as optimize
from pilotwave_cli.output import warn
from pilotwave_cli.publish import command as publish
from pilotwave_cli.publish import golden_command
from pilotwave_cli.reference import command as reference
from pilotwave_cli.simulate import command as simulate
from pilotwave_protocol.build import build_of
from pilotwave_protocol.errors import PilotwaveError

cli = typer.Typer(
    name="pilotwave",
    help=__doc__.split("\n")[0],
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)


def _say_version(wanted: bool) -> None:
    if wanted:
        print(
            f"pilotwave {installed('pilotwave')}+{build_of('pilotwave_cli', 'pilotwave_protocol')}"
        )
        raise typer.Exit


@cli.callback(help=__doc__.split("\n")[0])
def _top(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", is_eager=True, callback=_say_version
        ),
    ] = False,
) -> None: ...


login.add_to(cli)
cli.add_typer(keys.cli, name="keys")
keys.add_to(cli)
cli.add_typer(models.cli, name="models")
publish.add_to(cli)
golden_command.add_to(cli)
optimize.add_to(cli)
calibrate.add_to(cli)
reference.add_to(cli)
cli.add_typer(versions.cli, name="versions")
cli.add_typer(device_logs.cli, name="devices")
cli.add_typer(captures.cli, name="captures")
cli.add_typer(learn.cli, name="learn")
cli.add_typer(codes.cli, name="codes")
cli.add_typer(groups.cli, name="groups")
groups.add_to(cli)
cli.add_typer(policies.cli, name="policies")
cli.add_typer(rollouts.cli, name="rollouts")
cli.add_typer(bytes_and_sites.sites, name="sites")
bytes_and_sites.add_to(cli)
cli.add_typer(deltas.cli, name="deltas")
cli.add_typer(tokens.cli, name="tokens")
cli.add_typer(people.cli, name="people")
cli.add_typer(webhooks.cli, name="webhooks")
cli.add_typer(attention.cli, name="attention")
cli.add_typer(audit.cli, name="audit")
events.add_to(cli)
simulate.add_to(cli)


def app() -> None:
    """Run a command line."""
    try:
        cli()
    except CliError as e:
        warn(f"pilotwave: {e}")
        sys.exit(e.exit_status)
    except PilotwaveError as e:
        warn(f"pilotwave: {e}")
        sys.exit(2)
    except BrokenPipeError:
        # the reader of a pipe went away, as `| head` does
        sys.stderr.close()
        sys.exit(0)
    except OSError as e:
        warn(f"pilotwave: {e.filename or 'a file'}: {e.strerror or e}")
        sys.exit(1)


if __name__ == "__main__":
    app()
