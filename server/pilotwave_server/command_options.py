"""What the commands of `pilotwave-server` have in common: options, errors in a sentence, JSON."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from pilotwave_protocol.errors import PilotwaveError
from pilotwave_server.errors import ServerError

F = TypeVar("F", bound=Callable[..., None])

Data = Annotated[
    Path | None, typer.Option("--data", help="Folder of database, blobs and server keys.")
]
DatabaseUrl = Annotated[
    str | None, typer.Option("--database-url", help="sqlite:///… or postgresql://…")
]
Json = Annotated[bool, typer.Option("--json", help="Answer with one JSON document.")]
TokenFile = Annotated[
    Path | None,
    typer.Option("--token-file", help="Write the token there (mode 0600), print it nowhere."),
]
PassphraseFile = Annotated[
    Path | None,
    typer.Option("--passphrase-file", help="File with the passphrase that locks the keys."),
]


def clear_errors(command: F) -> F:
    """End with one sentence and status 2 where a command cannot do what it was asked."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except (ServerError, PilotwaveError) as error:
            typer.echo(f"pilotwave-server: {error}", err=True)
            raise typer.Exit(2) from None

    return run  # type: ignore[return-value]  # it is called just as the command is


def print_json(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")


def show(lines: Iterable[str]) -> None:
    for line in lines:
        typer.echo(line)
