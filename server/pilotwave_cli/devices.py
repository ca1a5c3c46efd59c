"""`pilotwave devices`: who is in the fleet, and who may join or stay. What a device runs, and is
told to run, is `device_models.py`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pilotwave_cli import bulk, output
from pilotwave_cli.bulk import OptionalDevice, Selected, one_or_selected
from pilotwave_cli.bytes_and_sites import show_table
from pilotwave_cli.client import connect
from pilotwave_cli.confirm import Yes, sure
from pilotwave_cli.durations import pairs
from pilotwave_cli.errors import CliError
from pilotwave_cli.output import Json
from pilotwave_protocol import names

cli = typer.Typer(help="List, accept, label, roll back and pin devices.", no_args_is_help=True)

Device = Annotated[str, typer.Argument(help="The device's name.")]


def _runs(device: dict[str, Any]) -> str:
    shown = [f"{m['model']} {m['current_version'] or '-'} ({m['state']})" for m in device["models"]]
    return ", ".join(shown) or "-"


Selector = Annotated[
    str | None,
    typer.Option(help="Like `site=berlin, fact.hw in (orin, nano)` or `runs detector<1.2`."),
]
State = Annotated[str | None, typer.Option(help="enrolled, pending, revoked or decommissioned.")]
Standing = Annotated[
    str | None, typer.Option(help="online, silent, failing, refusing, conflict or drifting.")
]
OfModel = Annotated[
    str | None,
    typer.Option("--model", help="Only devices that run this model, or tried to install it."),
]
OfVersion = Annotated[
    str | None, typer.Option("--version", help="Only devices that run this version.")
]
OfGroup = Annotated[str | None, typer.Option("--group", help="Only devices in this group.")]
OfName = Annotated[str | None, typer.Option("--name", help="Only devices with this in their name.")]
OfReason = Annotated[
    str | None,
    typer.Option(
        "--why", help="Only devices held, failed or refusing for this reason: selftest_mismatch."
    ),
]


@cli.command("list")
def list_(
    selector: Selector = None,
    state: State = None,
    standing: Standing = None,
    model: OfModel = None,
    version: OfVersion = None,
    group: OfGroup = None,
    name: OfName = None,
    why: OfReason = None,
    sort: Annotated[
        str, typer.Option(help="Sort by name, state, agent or last_seen; a leading `-` reverses.")
    ] = "name",
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="Show at most this many.")] = 500,
    csv: Annotated[
        bool, typer.Option("--csv", help="Print all that match as CSV, by name.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List devices; all conditions must hold."""
    wish = {
        "selector": selector,
        "state": state,
        "standing": standing,
        "model": model,
        "version": version,
        "group": group,
        "name": name,
        "reason": why,
    }
    with connect() as api:
        if csv:
            for line in api.lines("/devices.csv", **wish):
                print(line)
            return
        rows = list(api.pages("/devices", most=limit, **wish, sort=sort))
    if as_json:
        output.show_json(rows)
        return
    columns: list[output.Column] = [
        ("device", "name"),
        ("state", "standing"),
        ("last seen", lambda r: output.when(r["last_seen"])),
        ("runs", _runs),
        ("labels", "labels"),
    ]
    output.table("Devices", rows, columns)
    for row in rows:
        if row.get("refusal"):
            output.warn(f"{row['name']} refuses its orders: {row['refusal'].get('action', '')}")


@cli.command("show")
def show(device: Device, as_json: Json = False) -> None:
    """Show one device: what it runs, its labels and facts."""
    with connect() as api:
        found = api.get(f"/devices/{names.check_device(device)}")
        sent = list(api.pages("/bytes", by="version", device=device))
    if as_json:
        output.show_json({**found, "bytes": sent})
        return
    skip = {"models", "labels", "facts", "name", "refusal"}
    lines = [
        (k, output.when(v) if k.endswith(("_at", "_since", "last_seen")) else v)
        for k, v in found.items()
        if k not in skip
    ]
    output.facts(found["name"], [*lines, ("labels", found["labels"]), ("facts", found["facts"])])
    columns: list[output.Column] = [
        ("model", "model"),
        ("state", "state"),
        ("current", "current_version"),
        ("previous", "previous_version"),
        ("candidate", "candidate_version"),
        ("reason", "reason"),
        ("detail", "detail"),
    ]
    output.table("Models", found["models"], columns)
    refusal = found.get("refusal")
    if refusal:
        output.warn(f"it refuses its orders: {refusal['detail'] or refusal['reason']}")
        output.warn(f"  what to do: {refusal.get('action', 'set its clock, or read its log')}")
    show_table("Bytes sent", sent, ["model", "version"])


@cli.command("label")
def label(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="DEVICE KEY=VALUE...", help="key=value sets a label, key= removes it."
        ),
    ],
    selector: Selected = None,
    yes: Yes = False,
) -> None:
    """Set labels on a device, or with --selector on many; those not named stay."""
    device, labels = (None, words) if selector else (words[0], words[1:])
    if not labels:
        raise CliError("name the labels: key=value, or key= to remove one")
    changes = {k: v or None for k, v in pairs(labels, "labels").items()}
    for key, value in changes.items():
        names.check_label_key(key)
        if value is not None:
            names.check_label_value(value)
    if selector:
        with connect() as api:
            what = f"get {output.plain(changes)}."
            bulk.act(api, "label", selector, what, yes=yes, labels=changes)
        return
    name = names.check_device(device or "")
    with connect() as api:
        kept = api.get(f"/devices/{name}")["labels"]
        wanted = {k: v for k, v in {**kept, **changes}.items() if v is not None}
        found = api.patch(f"/devices/{name}", {"labels": wanted})
    output.say(f"{name}: {output.plain(found['labels'])}")


def _act(device: str, verb: str, done: str) -> None:
    name = names.check_device(device)
    with connect() as api:
        api.post(f"/devices/{name}/{verb}")
    output.say(f"{name} {done}")


def _act_if_sure(device: str, verb: str, done: str, told: str, question: str, yes: bool) -> None:
    """Ask about a device that is there, then act."""
    name = names.check_device(device)
    with connect() as api:
        api.get(f"/devices/{name}")
        sure(told, question, yes=yes)
        api.post(f"/devices/{name}/{verb}")
    output.say(f"{name} {done}")


@cli.command("accept")
def accept(device: OptionalDevice = None, selector: Selected = None, yes: Yes = False) -> None:
    """Accept a device that asked to join without a code; with --selector, many."""
    name = one_or_selected(device, selector)
    if name is None:
        with connect() as api:
            what = "may join; each that does not wait for it stays as it is."
            bulk.act(api, "accept", selector or "", what, yes=yes)
        return
    with connect() as api:
        key = api.get(f"/devices/{name}")["keyid"]
        api.post(f"/devices/{name}/accept")
    output.say(f"{name} is enrolled; it starts with its next poll")
    output.say(f"its key is {key}; `status` of its agent must say the same, or")
    output.say(f"somebody else took its name: `pilotwave devices revoke {name}`")


@cli.command("reject")
def reject(device: Device, yes: Yes = False) -> None:
    """Reject a device that asked to join."""
    told = f"1 device: {names.check_device(device)} is removed from the list until it asks again."
    _act_if_sure(device, "reject", "was turned down", told, f"Turn {device} down?", yes)


@cli.command("revoke")
def revoke(device: Device, yes: Yes = False) -> None:
    """Revoke a device's key at once, for one that is lost or stolen."""
    name = names.check_device(device)
    told = f"1 device: the key of {name} is revoked for good; a new key and a code bring it back."
    done = "is revoked; a new code made with --device lets it enrol again"
    _act_if_sure(name, "revoke", done, told, f"Revoke {name}?", yes)


@cli.command("settle")
def settle(device: Device) -> None:
    """End a key conflict, once one of the two machines is re-enrolled or gone."""
    _act(device, "settle", "is no longer in conflict; it gets updates again")


@cli.command("decommission")
def decommission(
    device: OptionalDevice = None, selector: Selected = None, yes: Yes = False
) -> None:
    """Decommission a device, or many with --selector; its history stays."""
    name = one_or_selected(device, selector)
    if name is None:
        with connect() as api:
            what = "get no more updates; each needs a code to come back."
            bulk.act(api, "decommission", selector or "", what, yes=yes)
        return
    told = f"1 device: {name} gets no more updates; it needs a code to come back."
    _act_if_sure(name, "decommission", "is decommissioned", told, f"Decommission {name}?", yes)
