"""`pilotwave events`: the audit log; `pilotwave follow`: what happens, as it happens."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from pilotwave_cli import output
from pilotwave_cli.client import connect
from pilotwave_cli.errors import NoAnswer
from pilotwave_cli.output import Json

AGAIN_S = 2.0


def add_to(cli: typer.Typer) -> None:
    """Add the commands that stand at the top."""
    cli.command("events")(events)
    cli.command("follow")(follow)


def events(
    actor: Annotated[str | None, typer.Option(help="Only what this person or token did.")] = None,
    obj: Annotated[
        str | None, typer.Option("--object", help="Only what was done to this object.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Show at most this many.")] = 50,
    as_json: Json = False,
) -> None:
    """Show who did what to which, newest first."""
    with connect() as api:
        rows = list(api.pages("/events", most=limit, actor=actor, object=obj))
    columns: list[output.Column] = [
        ("when", lambda r: output.when(r["at"])),
        ("who", "actor"),
        ("did", "verb"),
        ("to", "object"),
        ("before", "before"),
        ("after", "after"),
    ]
    output.table("Events", rows, columns, as_json=as_json)


def follow(
    on: Annotated[
        list[str] | None,
        typer.Option("--on", help="Type of event, such as `device.*`; repeatable. [default: all]"),
    ] = None,
    after: Annotated[
        str | None, typer.Option(help="Continue after this id; `0.0`: from the beginning.")
    ] = None,
    most: Annotated[int | None, typer.Option(min=1, help="Stop after this many events.")] = None,
    as_json: Json = False,
) -> None:
    """Stream events as they happen, until Ctrl-C; reconnects after a lost connection."""
    for given, (place, event) in enumerate(_follow(on or [], after), 1):
        if as_json:
            print(json.dumps({"place": place, **event}, ensure_ascii=False), flush=True)
        else:
            data = event["data"]
            told = output.plain(data["after"]) if data["after"] else ""
            said = f"{event['timestamp']}  {event['type']}  {data['object']}  {data['actor']}"
            output.say(output.plain(f"{said}  {told}"))
        if given == most:
            return


def _follow(types: list[str], after: str | None) -> Iterator[tuple[str, Any]]:
    place, reached = after, False
    with connect() as api:
        while True:
            try:
                for now, data in api.event_stream("/events/stream", place, type=types):
                    place, reached = now, True
                    if data:
                        yield now, json.loads(data)
            except NoAnswer as error:
                if not reached:
                    raise
                output.warn(f"{error}; trying again")
            time.sleep(AGAIN_S)
