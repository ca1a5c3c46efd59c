"""`pilotwave events`: the audit log."""

from __future__ import annotations

from typing import Annotated

import typer

from pilotwave_cli import output
from pilotwave_cli.client import connect
from pilotwave_cli.output import Json


def add_to(cli: typer.Typer) -> None:
    """Add the command that stands at the top."""
    cli.command("events")(events)


def events(
    actor: Annotated[str | None, typer.Option(help="Only what this one did.")] = None,
    obj: Annotated[str | None, typer.Option("--object", help="Only what was done to it.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at the most.")] = 50,
    as_json: Json = False,
) -> None:
    """Show who did what to which, newest first."""
    with connect() as api:
        rows = list(api.pages("/events", most=limit, actor=actor, object=obj))
    if as_json:
        output.show_json(rows)
        return
    columns: list[output.Column] = [
        ("when", lambda r: output.when(r["at"])),
        ("who", "actor"),
        ("did", "verb"),
        ("to", "object"),
        ("before", "before"),
        ("after", "after"),
    ]
    output.table("Events", rows, columns)
