"""Act on all devices that a selector takes, by one request."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pilotwave_cli import output
from pilotwave_cli.client import Api
from pilotwave_cli.confirm import count, sure
from pilotwave_cli.errors import CliError, Failed
from pilotwave_protocol import names

OptionalDevice = Annotated[str | None, typer.Argument(help="The device's name.")]
Selected = Annotated[
    str | None,
    typer.Option(
        "--selector",
        help="Act on all devices that this takes: `site=berlin, runs detector=1.2.0`.",
    ),
]


def one_or_selected(device: str | None, selector: str | None) -> str | None:
    """Return the one device's name, or None where a selector says which."""
    if (device is None) == (selector is None):
        raise CliError("name a device, or give --selector")
    return None if device is None else names.check_device(device)


def act(api: Api, action: str, selector: str, what: str, *, yes: bool, **body: Any) -> None:
    """Say how many devices match and what follows, ask, act, and say what was not done."""
    shown = api.get("/device-count", selector=selector)
    matched = shown["devices"]
    if not matched:
        raise Failed("no device matches the selector")
    sure(f"{count(matched)} {what}", f"Go on with {count(matched)}?", yes=yes)
    if shown["digest"] is None:
        raise Failed(f"{count(matched)} match, more than one act takes: narrow the selector")
    same = {"expected": matched, "digest": shown["digest"], "sketch": shown["sketch"]}
    wish = {"action": action, "filter": {"selector": selector}, **same, **body}
    found = api.post("/devices/bulk", wish)
    for item in found["items"]:
        if not item["done"]:
            output.warn(f"{item['device']}: {output.plain(item['sentence'])}")
    output.say(f"done: {found['done']:,} of {count(found['matched'])}")
    if found["done"] < found["matched"]:
        raise typer.Exit(1)
