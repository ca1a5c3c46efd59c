"""`pilotwave devices`: what one device ran, why it runs what it runs, and how to change that."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pilotwave_cli import bulk, output, remove_model
from pilotwave_cli.bulk import OptionalDevice, Selected, one_or_selected
from pilotwave_cli.client import connect, twice
from pilotwave_cli.confirm import Yes
from pilotwave_cli.devices import Device
from pilotwave_cli.devices import cli as cli
from pilotwave_cli.output import Json
from pilotwave_protocol import names

Model = Annotated[str, typer.Option("--model", help="The model.")]
Reason = Annotated[str, typer.Option("--reason", help="Reason, kept in the audit log.")]


@cli.command("events")
def events(
    device: Device,
    limit: Annotated[int, typer.Option(min=1, max=100_000)] = 50,
    as_json: Json = False,
) -> None:
    """Show the events that a device reported, newest first."""
    with connect() as api:
        rows = list(api.pages(f"/devices/{names.check_device(device)}/events", most=limit))
    columns: list[output.Column] = [
        ("when", lambda r: output.when(r["at"])),
        ("what", "kind"),
        ("model", "model"),
        ("version", "version"),
        ("reason", "reason"),
        ("detail", "detail"),
    ]
    output.table(f"Events of {device}", rows, columns, as_json=as_json)


@cli.command("history")
def history(
    device: Device,
    limit: Annotated[int, typer.Option(min=1, max=100_000)] = 50,
    as_json: Json = False,
) -> None:
    """Show which versions the device ran, and how each did."""
    with connect() as api:
        rows = list(api.pages(f"/devices/{names.check_device(device)}/history", most=limit))
    columns: list[output.Column] = [
        ("when", lambda r: output.when(r["at"])),
        ("model", "model"),
        ("version", "version"),
        ("became", "became"),
        ("reason", lambda r: r.get("sentence") or r["reason"]),
    ]
    output.table(f"History of {device}", rows, columns, as_json=as_json)


@cli.command("why")
def why(device: Device, model: Model, as_json: Json = False) -> None:
    """Explain which version the device should run, and why."""
    with connect() as api:
        found = api.get(
            f"/devices/{names.check_device(device)}/why", model=names.check_model(model)
        )
    if as_json:
        output.show_json(found)
        return
    output.say(found["sentence"])
    for step in found.get("candidates", []):
        output.say(f"  - {step['sentence']}")


@cli.command("rollback")
def rollback(
    model: Model,
    reason: Reason,
    device: OptionalDevice = None,
    to: Annotated[
        str | None, typer.Option(help="Version to go back to. [default: the last good one]")
    ] = None,
    selector: Selected = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Roll a device, or many with --selector, back to its last good version and pin it there."""
    body: dict[str, Any] = {"reason": reason}
    if to is not None:
        body["to"] = names.check_version(to)
    name, model = one_or_selected(device, selector), names.check_model(model)
    with connect() as api:
        if name is None:
            what = f"go back to {to or 'the last good version'} of {model} and are pinned there."
            bulk.act(api, "rollback", selector or "", what, yes=yes, model=model, **body)
            return
        pin = api.post(f"/devices/{name}/models/{model}/rollback", body)
    if as_json:
        output.show_json(pin)
    else:
        output.say(f"{name} is pinned to {model} {pin['version']}; unpin gives it back")


@cli.command("remove")
def remove(
    device: Device,
    model: Model,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete a model from a device that nothing tells it to run."""
    name, model = names.check_device(device), names.check_model(model)
    with connect() as api:
        path = f"/devices/{name}/models/{model}/removal"
        remove_model.remove(api, path, model, name, yes=yes)


@cli.command("pin")
def pin(
    device: Device,
    model: Model,
    version: Annotated[str, typer.Option("--version", help="Version to keep the device on.")],
    reason: Reason,
) -> None:
    """Pin a device to a version, whatever its groups are assigned."""
    name, model = names.check_device(device), names.check_model(model)
    body = {"version": names.check_version(version), "reason": reason}
    with connect() as api:
        api.post(f"/devices/{name}/models/{model}/pin", body, done=twice)
    output.say(f"{name} is pinned to {model} {version}")


@cli.command("unpin")
def unpin(device: Device, model: Model) -> None:
    """Unpin a device; it follows its groups again."""
    name, model = names.check_device(device), names.check_model(model)
    with connect() as api:
        api.delete(f"/devices/{name}/models/{model}/pin")
    output.say(f"{name} follows its groups again for {model}")


@cli.command("retry")
def retry(
    model: Model, device: OptionalDevice = None, selector: Selected = None, yes: Yes = False
) -> None:
    """Let a device, or many with --selector, retry a version that failed there."""
    name, model = one_or_selected(device, selector), names.check_model(model)
    with connect() as api:
        if name is None:
            what = f"try {model} again."
            bulk.act(api, "retry", selector or "", what, yes=yes, model=model)
            return
        api.post(f"/devices/{name}/models/{model}/retry")
    output.say(f"{name} tries {model} again at its next poll")
