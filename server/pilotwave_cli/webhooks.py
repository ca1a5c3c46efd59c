"""`pilotwave webhooks`: have a program of yours called when something happens."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from pilotwave_cli import output
from pilotwave_cli.client import Api, connect
from pilotwave_cli.confirm import Yes, must_be_listed, sure
from pilotwave_cli.errors import Failed
from pilotwave_cli.output import Json
from pilotwave_protocol import names

cli = typer.Typer(
    help="Manage webhooks: signed calls when something happens (docs/webhooks.md).",
    no_args_is_help=True,
)
Name = Annotated[str, typer.Argument(help="The webhook's name.")]
Types = Annotated[
    list[str] | None,
    typer.Option("--on", help="Type of event, such as `rollout.rolled_back` or `rollout.*`."),
]
TRIED_S = 30.0


def _path(name: str, *more: object) -> str:
    return "/".join(["/webhooks", names.check_group(name), *map(str, more)])


@cli.command("create")
def create(
    name: Name,
    url: Annotated[str, typer.Argument(help="URL that is called by POST.")],
    on: Types = None,
    as_json: Json = False,
) -> None:
    """Create a webhook; its secret is shown only once."""
    body = {"name": names.check_group(name), "url": url, "types": on or []}
    with connect() as api:
        made = api.post("/webhooks", body)
    if as_json:
        output.show_json(made)
    else:
        output.say(f"webhook {name} is told of {_types(made)}; its secret, shown this once:")
        print(made["secret"])


@cli.command("list")
def list_(as_json: Json = False) -> None:
    """List webhooks."""
    with connect() as api:
        rows = list(api.pages("/webhooks"))
    columns: list[output.Column] = [
        ("webhook", "name"),
        ("calls", "url"),
        ("on", _types),
        ("state", lambda r: "on" if r["enabled"] else "off"),
        ("by", "created_by"),
        ("made", lambda r: output.when(r["created_at"])),
    ]
    output.table("Webhooks", rows, columns, as_json=as_json)


@cli.command("change")
def change(
    name: Name,
    url: Annotated[str | None, typer.Option(help="Another address.")] = None,
    on: Types = None,
    enable: Annotated[bool | None, typer.Option("--enable/--disable")] = None,
    as_json: Json = False,
) -> None:
    """Change a webhook, or turn it off or on."""
    with connect() as api:
        changed = api.patch(_path(name), {"url": url, "types": on, "enabled": enable})
    if as_json:
        output.show_json(changed)
    else:
        state = "is told of" if changed["enabled"] else "is off; once on, it is told of"
        output.say(f"webhook {name} at {changed['url']} {state} {_types(changed)}")


@cli.command("delete")
def delete(name: Name, yes: Yes = False) -> None:
    """Remove a webhook with its deliveries."""
    told = f"1 webhook: {name} is no longer called, and its deliveries are deleted."
    with connect() as api:
        must_be_listed(api, "/webhooks", "name", name, "webhook")
        sure(told, f"Delete {name}?", yes=yes)
        api.delete(_path(name))
    output.say(f"deleted webhook {name}")


@cli.command("secret")
def secret(name: Name, as_json: Json = False) -> None:
    """Replace the secret; the previous one keeps signing until the next change."""
    with connect() as api:
        made = api.post(_path(name, "secret"))
    if as_json:
        output.show_json(made)
    else:
        output.say(f"the new secret of {name}, shown this once:")
        print(made["secret"])


@cli.command("test")
def try_(name: Name, as_json: Json = False) -> None:
    """Send a `webhook.test` event and show the result of the first try."""
    with connect() as api:
        made = api.post(_path(name, "test"))
        tried = _tried(api, name, made["id"])
    if as_json:
        output.show_json(tried)
    if tried["state"] != "delivered":
        why = tried["last_error"] or "no try yet; see `webhooks deliveries`"
        raise Failed(f"{name} was not reached: {why}")
    if not as_json:
        output.say(f"{name} answered {tried['last_status']}")


def _tried(api: Api, name: str, number: int) -> Any:
    ends = time.monotonic() + TRIED_S
    while True:
        found = api.get(_path(name, "deliveries", number))
        tried = found["last_status"] is not None or found["last_error"] is not None
        if tried or found["state"] != "waiting" or time.monotonic() > ends:
            return found
        time.sleep(0.2)


@cli.command("deliveries")
def deliveries(
    name: Name,
    state: Annotated[
        str | None, typer.Option(help="waiting, delivered or given_up; default: all.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Show at most this many.")] = 50,
    as_json: Json = False,
) -> None:
    """Show deliveries and their results, newest first."""
    with connect() as api:
        rows = list(api.pages(_path(name, "deliveries"), most=limit, state=state))
    columns: list[output.Column] = [
        ("number", "id"),
        ("event", "type"),
        ("when", lambda r: output.when(r["created_at"])),
        ("state", lambda r: r["state"].replace("_", " ")),
        ("tries", "tries"),
        ("status", "last_status"),
        ("error", "last_error"),
        ("next", lambda r: output.when(r["due_at"]) if r["state"] == "waiting" else "-"),
    ]
    output.table(f"Deliveries to {name}", rows, columns, as_json=as_json)


@cli.command("again")
def again(name: Name, number: Annotated[int, typer.Argument(help="The delivery.")]) -> None:
    """Send a delivery again, with the same id."""
    with connect() as api:
        api.post(_path(name, "deliveries", number, "again"))
    output.say(f"delivery {number} is sent again")


def _types(row: Any) -> str:
    return output.plain(row["types"]) if row["types"] else "each event"
