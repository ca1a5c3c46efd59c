"""`pilotwave audit`: the log of what was done, whole, and whether anybody changed it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from pilotwave_cli import output
from pilotwave_cli.client import connect
from pilotwave_cli.errors import CliError, Failed
from pilotwave_cli.output import Json
from pilotwave_protocol.auditchain import check

cli = typer.Typer(help="Export and verify the audit log.")
MEMBERS = {"id", "at", "actor", "verb", "object", "before", "after", "sha256"}


@cli.command()
def export(
    file: Annotated[
        Path | None, typer.Option("--file", help="Write to this file. [default: print]")
    ] = None,
) -> None:
    """Write all events as JSON lines, oldest first."""
    with ExitStack() as stack:
        api = stack.enter_context(connect())
        to = sys.stdout if file is None else stack.enter_context(file.open("w"))
        count = 0
        for line in api.lines("/events/export"):
            to.write(f"{line}\n")
            count += 1
    if file is not None:
        output.say(f"wrote {count} events to {file}")


@cli.command()
def verify(
    file: Annotated[
        Path | None, typer.Option("--file", help="Verify this export. [default: ask the server]")
    ] = None,
    noted: Annotated[
        str | None, typer.Option("--noted", help="A digest that you noted earlier.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Follow the chain from its start. The digests are computed here, not by the server.

    Note the last digest somewhere else: a log that was rewritten whole does not meet it any more.
    """
    with ExitStack() as stack:
        lines: Iterable[str] = (
            stack.enter_context(file.open())
            if file is not None
            else stack.enter_context(connect()).lines("/events/export")
        )
        found = check(_events(lines), expected=noted)
    missing = noted is not None and not found.seen and found.broken_at is None
    if as_json:
        output.show_json({**vars(found), "ok": found.broken_at is None and not missing})
    if found.broken_at is not None:
        raise Failed(f"event {found.broken_at} does not fit the chain: {found.fault}")
    if missing:
        raise Failed(f"the digest {noted} is not in the chain: the log was rewritten or cut")
    if not as_json:
        output.say(f"{found.events} events, unchanged; the last digest is {found.head}")


def _events(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, 1):
        try:
            event = json.loads(line)
        except ValueError:
            raise CliError(f"line {number} is not JSON") from None
        if not isinstance(event, dict) or set(event) != MEMBERS or not isinstance(event["id"], int):
            raise CliError(f"line {number} is not an audit event")
        yield event
