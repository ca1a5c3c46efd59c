"""`pilotwave groups`, `assign`, `unassign`: named sets of devices and what each runs."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pilotwave_cli import output, remove_model
from pilotwave_cli.client import connect
from pilotwave_cli.confirm import Yes, about_assignment, count, sure
from pilotwave_cli.errors import CliError
from pilotwave_cli.output import Json
from pilotwave_protocol import names

cli = typer.Typer(
    help="Create and change groups: static lists, or selectors.", no_args_is_help=True
)
Group = Annotated[str, typer.Argument(help="The group's name.")]
Device = Annotated[str, typer.Argument(help="The device's name.")]


def add_to(top: typer.Typer) -> None:
    """Add the commands that stand at the top."""
    top.command("assign")(assign)
    top.command("unassign")(unassign)


@cli.command("list")
def list_(as_json: Json = False) -> None:
    """List groups."""
    with connect() as api:
        rows = list(api.pages("/groups"))
    columns: list[output.Column] = [("group", "name"), ("kind", "kind"), ("selector", "selector")]
    output.table("Groups", rows, columns, as_json=as_json)


@cli.command("create")
def create(
    group: Group,
    selector: Annotated[
        str | None,
        typer.Option(help="Like `site=berlin, fact.hw in (orin, nano), fact.battery>20`."),
    ] = None,
    device: Annotated[
        list[str] | None, typer.Option("--device", help="A member; repeatable.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Create a group, from a selector or a list of devices."""
    if selector is not None and device:
        raise CliError("a group has a selector or a list of devices, not both")
    body: dict[str, Any] = {"name": names.check_group(group)}
    if selector is not None:
        body["selector"] = selector
    members = [names.check_device(d) for d in device or []]
    with connect() as api:
        for member in members:  # an unknown one is refused before there is a group
            api.get(f"/devices/{member}")
        made = api.post("/groups", body)
        for member in members:
            api.put(f"/groups/{group}/members/{member}")
    if as_json:
        output.show_json(made)
    else:
        output.say(f"created group {group}")


@cli.command("show")
def show(
    group: Group,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000)] = 200,
    as_json: Json = False,
) -> None:
    """Show a group: what it runs and who is in it."""
    name = names.check_group(group)
    with connect() as api:
        found = api.get(f"/groups/{name}")
        baselines = api.get(f"/groups/{name}/baselines")["items"]
        devices = list(api.pages(f"/groups/{name}/devices", most=limit))
    if as_json:
        output.show_json({**found, "baselines": baselines, "devices": devices})
        return
    output.facts(name, [(k, v) for k, v in found.items() if k != "name"])
    columns: list[output.Column] = [
        ("model", "model"),
        ("version", "version"),
        ("by", "set_by"),
        ("since", lambda r: output.when(r["at"])),
    ]
    output.table("Runs", baselines, columns)
    output.table("Devices", devices, [("device", "name"), ("state", "state"), ("labels", "labels")])


@cli.command("delete")
def delete(group: Group, yes: Yes = False) -> None:
    """Delete a group; its devices keep what they run."""
    with connect() as api:
        devices = count(api.get(f"/groups/{names.check_group(group)}")["devices"])
        told = f"{devices} of {group}: they keep what they run and get no more orders by it."
        sure(told, f"Delete the group {group}?", yes=yes)
        api.delete(f"/groups/{names.check_group(group)}")
    output.say(f"deleted group {group}; its devices keep what they run")


@cli.command("add")
def add(group: Group, device: Device) -> None:
    """Add a device to a list group."""
    with connect() as api:
        api.put(f"/groups/{names.check_group(group)}/members/{names.check_device(device)}")
    output.say(f"{device} is in {group}")


@cli.command("remove")
def remove(group: Group, device: Device) -> None:
    """Remove a device from a list group."""
    with connect() as api:
        api.delete(f"/groups/{names.check_group(group)}/members/{names.check_device(device)}")
    output.say(f"{device} is no longer in {group}")


def assign(
    model: Annotated[str, typer.Argument(help="The model.")],
    version: Annotated[str, typer.Argument(help="The version.")],
    group: Annotated[str, typer.Option("--group", help="The group that gets it.")],
    together: Annotated[
        list[str] | None,
        typer.Option(
            "--together", help="A model that must change together with this one; repeatable."
        ),
    ] = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Assign a version to a whole group at once."""
    path = f"/groups/{names.check_group(group)}/baselines/{names.check_model(model)}"
    with connect() as api:
        if not yes:
            told, asked, few = about_assignment(api, group, model, names.check_version(version))
            sure(told, asked, yes=yes, few=few)
        body: dict[str, Any] = {"version": names.check_version(version)}
        if together:
            body["together"] = [names.check_model(other) for other in together]
        made = api.put(path, body)
    if as_json:
        output.show_json(made)
        return
    output.say(f"assigned {model} {version} to {group}; its devices take it at their next poll")
    if together:
        output.say(f"  it changes together with {', '.join(together)}")
    output.say(f"  {_fitting(made['fits'], made['devices'], group)}")
    for reason, some in made.get("holds", {}).items():
        output.warn(f"  {some} of its devices cannot take it: {reason}")
    _warn_of_trouble(made, model)


def _fitting(fits: int, devices: int, group: str) -> str:
    """Say how many of the group's devices have a variant that fits."""
    if not devices:
        return f"{group} has no device yet; those that join it take it too"
    if devices == 1:
        return f"its variants fit {fits} of 1 device"
    return f"its variants fit {fits} of {devices} devices"


def _warn_of_trouble(made: dict[str, Any], model: str) -> None:
    refusing, failed = made.get("refusing", 0), made.get("failed_before", 0)
    if refusing:
        hint = "`pilotwave devices list --standing failing` says what to do"
        output.warn(f"  its devices that refuse their orders: {refusing}; {hint}")
    if failed:
        hint = f"each tries it again after `pilotwave devices retry DEVICE --model {model}`"
        output.warn(f"  its devices on which it failed before: {failed}; {hint}")


def unassign(
    model: Annotated[str, typer.Argument(help="The model.")],
    group: Annotated[str, typer.Option("--group", help="Group whose assignment to remove.")],
    remove: Annotated[
        bool, typer.Option("--remove", help="Also delete the model from the group's devices.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Remove without asking.")] = False,
) -> None:
    """Unassign a model from a group; its devices keep what they run unless --remove is given."""
    path = f"/groups/{names.check_group(group)}/baselines/{names.check_model(model)}"
    with connect() as api:
        if remove:
            remove_model.remove(api, f"{path}/removal", model, f"the devices of {group}", yes=yes)
            return
        api.delete(path)
    output.say(f"{group} no longer has a version of {model}")
