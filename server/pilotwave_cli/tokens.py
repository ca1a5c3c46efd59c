"""`pilotwave tokens`: who may use the operator API."""

from __future__ import annotations

from datetime import datetime, timezone
from enum import Enum
from typing import Annotated

import typer

from pilotwave_cli import output
from pilotwave_cli.client import check_id, connect
from pilotwave_cli.confirm import Yes, must_be_listed, sure
from pilotwave_cli.durations import Duration
from pilotwave_cli.output import Json
from pilotwave_protocol import names

cli = typer.Typer(help="Create, list and revoke tokens for the operator API.", no_args_is_help=True)


class Role(str, Enum):
    """What a token may do."""

    VIEWER = "viewer"
    PUBLISHER = "publisher"
    OPERATOR = "operator"
    ADMIN = "admin"


@cli.command("create")
def create(
    name: Annotated[str, typer.Argument(help="Name of the token: whose it is, or what it is for.")],
    role: Annotated[Role, typer.Option(help="Role of the token.")],
    expires: Annotated[str | None, typer.Option(help="Lifetime: 90d, 12h.")] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", help="The models that it may change [all]; repeatable."),
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option("--group", help="The groups that it may change [all]; repeatable."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Create a token; it is shown only once."""
    body: dict[str, object] = {"name": name, "role": role.value}
    if model:
        body["models"] = [names.check_model(word) for word in model]
    if group:
        body["groups"] = [names.check_group(word) for word in group]
    if expires:
        ends = datetime.now(timezone.utc).replace(microsecond=0) + Duration.parse(expires)
        body["expires_at"] = ends.isoformat().replace("+00:00", "Z")
    with connect() as api:
        made = api.post("/tokens", body)
    if as_json:
        output.show_json(made)
    else:
        output.say(f"token {made['id']} for {name} ({role.value}), shown this once:")
        print(made["token"])


@cli.command("list")
def list_(as_json: Json = False) -> None:
    """List tokens, revoked ones too."""
    with connect() as api:
        rows = list(api.pages("/tokens"))
    columns: list[output.Column] = [
        ("id", "id"),
        ("name", "name"),
        ("role", "role"),
        ("models", lambda r: output.plain(r["models"] or "all")),
        ("groups", lambda r: output.plain(r["groups"] or "all")),
        ("made", lambda r: output.when(r["created_at"])),
        ("last used", lambda r: output.when(r["last_used_at"])),
        ("ends", lambda r: output.when(r["expires_at"])),
        ("revoked", lambda r: output.when(r["revoked_at"]) if r["revoked_at"] else "-"),
    ]
    output.table("Tokens", rows, columns, as_json=as_json)


@cli.command("revoke")
def revoke(
    token_id: Annotated[str, typer.Argument(help="Id of the token, from `tokens list`.")],
    yes: Yes = False,
) -> None:
    """Revoke a token at once."""
    told = f"1 token: requests with {token_id} are refused from now on."
    with connect() as api:
        must_be_listed(api, "/tokens", "id", check_id(token_id), "token")
        sure(told, "Revoke it?", yes=yes)
        api.delete(f"/tokens/{check_id(token_id)}")
    output.say(f"token {token_id} is revoked")
