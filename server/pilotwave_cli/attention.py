"""`pilotwave attention`: what needs a person, and who sees to it."""

from __future__ import annotations

from typing import Annotated

import typer

from pilotwave_cli import output
from pilotwave_cli.client import connect
from pilotwave_cli.output import Json

cli = typer.Typer(help="List what needs attention, and acknowledge it.", no_args_is_help=True)
Key = Annotated[str, typer.Argument(help="Key of the entry, from `attention list`.")]


@cli.command("list")
def list_(as_json: Json = False) -> None:
    """List what needs attention; acknowledged entries come last."""
    with connect() as api:
        rows = api.get("/attention")["items"]
    columns: list[output.Column] = [
        ("key", "key"),
        ("state", lambda r: r["state"].replace("_", " ")),
        ("what", "title"),
        ("why", "sentence"),
        ("acknowledged", lambda r: _who(r["acknowledged_by"], r["acknowledged_at"])),
    ]
    output.table("Attention", rows, columns, as_json=as_json)


def _who(by: str | None, at: str | None) -> str:
    return f"{by}, {output.when(at)}" if by else "-"


@cli.command("acknowledge")
def acknowledge(key: Key, note: Annotated[str, typer.Option(help="Note for others.")] = "") -> None:
    """Acknowledge an entry; it returns if it changes."""
    with connect() as api:
        found = api.post("/attention/acknowledge", {"key": key, "note": note})
    output.say(f"acknowledged: {output.plain(found['title'])}")


@cli.command("withdraw")
def withdraw(key: Key) -> None:
    """Withdraw an acknowledgement."""
    with connect() as api:
        found = api.post("/attention/withdraw", {"key": key})
    output.say(f"needs attention again: {output.plain(found['title'])}")
