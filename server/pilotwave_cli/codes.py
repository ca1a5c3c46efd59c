"""`pilotwave codes`: one-time codes by which devices join."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pilotwave_cli import output
from pilotwave_cli.client import check_id, connect
from pilotwave_cli.confirm import Yes, must_be_listed, sure
from pilotwave_cli.durations import Duration, pairs
from pilotwave_cli.output import Json
from pilotwave_protocol import names

cli = typer.Typer(help="Create and list one-time enrolment codes.", no_args_is_help=True)


@cli.command("create")
def create_codes(
    count: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 1,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", help="Label for the device, key=value; repeatable."),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Only a device with this name may use the code.")
    ] = None,
    expires: Annotated[str, typer.Option(help="Lifetime of the code: 24h, 7d.")] = "24h",
    as_json: Json = False,
) -> None:
    """Create one-time codes, each for one device. They are shown only once."""
    labels = pairs(label or [], "--label")
    for key, value in labels.items():
        names.check_label_key(key)
        names.check_label_value(value)
    seconds = int(Duration.parse(expires).total_seconds())
    body: dict[str, Any] = {"count": count, "labels": labels, "expires_in_s": seconds}
    if device is not None:
        body["device"] = names.check_device(device)
    with connect() as api:
        made = api.post("/enrolment-codes", body)
    if as_json:
        output.show_json(made)
        return
    for item in made["items"]:
        print(item["code"])
    each = "it enrols one device" if count == 1 else "each enrols one device"
    again = "it is not shown again" if count == 1 else "they are not shown again"
    output.warn(f"{each} within {expires}; {again}")


@cli.command("list")
def list_codes(as_json: Json = False) -> None:
    """List codes without their secret part."""
    with connect() as api:
        rows = list(api.pages("/enrolment-codes"))
    columns: list[output.Column] = [
        ("id", "id"),
        ("made", lambda r: output.when(r["created_at"])),
        ("ends", lambda r: output.when(r["expires_at"])),
        ("device", "device"),
        ("labels", "labels"),
        ("used by", "used_by"),
    ]
    output.table("Enrolment codes", rows, columns, as_json=as_json)


@cli.command("delete")
def delete_code(
    code_id: Annotated[str, typer.Argument(help="Id of the code, from `codes list`.")],
    yes: Yes = False,
) -> None:
    """Revoke an unused code."""
    with connect() as api:
        must_be_listed(api, "/enrolment-codes", "id", check_id(code_id), "code")
        sure(f"1 code: nobody can enrol with code {code_id}.", "Take it back?", yes=yes)
        api.delete(f"/enrolment-codes/{check_id(code_id)}")
    output.say(f"deleted code {code_id}")
