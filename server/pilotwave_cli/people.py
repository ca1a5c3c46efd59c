"""`pilotwave people`: who signs in to the web page, and how."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pilotwave_cli import output
from pilotwave_cli.client import connect
from pilotwave_cli.confirm import Yes, must_be_listed, sure
from pilotwave_cli.output import Json
from pilotwave_cli.tokens import Role
from pilotwave_protocol.names import check_person

cli = typer.Typer(help="Manage people who sign in to the web page.", no_args_is_help=True)
Person = Annotated[str, typer.Argument(help="Name of the account.")]


def _path(name: str, more: str = "") -> str:
    return f"/people/{check_person(name)}{more}"


@cli.command("list")
def list_(as_json: Json = False) -> None:
    """List people, disabled ones too."""
    with connect() as api:
        rows = list(api.pages("/people"))
    columns: list[output.Column] = [
        ("name", "name"),
        ("role", "role"),
        ("signs in by", _way_in),
        ("last login", lambda r: output.when(r["last_login_at"])),
        ("disabled", lambda r: output.when(r["disabled_at"]) if r["disabled_at"] else "-"),
    ]
    output.table("People", rows, columns, as_json=as_json)


def _way_in(row: dict[str, Any]) -> str:
    if row["oidc_subject"]:
        return f"OpenID Connect ({row['oidc_subject']})"
    if not row["password"]:
        return "nothing yet"
    return "password and code" if row["totp"] else "password"


@cli.command("create")
def create(
    name: Person,
    role: Annotated[Role, typer.Option(help="Role of the person.")],
    as_json: Json = False,
) -> None:
    """Create an account; its login link is shown only once."""
    with connect() as api:
        made = api.post("/people", {"name": name, "role": role.value})
    if as_json:
        output.show_json(made)
        return
    output.say(f"{name} ({role.value}) signs in, once, at this path of the server:")
    print(made["link"]["path"])


@cli.command("link")
def link(name: Person) -> None:
    """Create a login link, to set a password or link an OpenID Connect account."""
    with connect() as api:
        made = api.post(_path(name, "/link"))
    output.say(f"{name} signs in, once, at this path of the server:")
    print(made["path"])


@cli.command("bind")
def bind(
    name: Person,
    subject: Annotated[str, typer.Option(help="The claim `sub` that the provider gives.")],
    issuer: Annotated[
        str | None, typer.Option(help="The provider's URL; default: the server's setting.")
    ] = None,
    remove_password: Annotated[
        bool, typer.Option("--remove-password", help="Remove the account's password, if any.")
    ] = False,
) -> None:
    """Link an OpenID Connect subject to a person's account."""
    body = {"subject": subject, "issuer": issuer, "remove_password": remove_password}
    with connect() as api:
        bound = api.put(_path(name, "/oidc"), body)
    output.say(f"{name} is bound to {bound['oidc_subject']}")


@cli.command("unbind")
def unbind(name: Person, yes: Yes = False) -> None:
    """Unlink a person's OpenID Connect subject and create a login link."""
    told = f"1 person: {name} cannot sign in until somebody creates a login link."
    with connect() as api:
        must_be_listed(api, "/people", "name", check_person(name), "person")
        sure(told, f"Unbind {name}?", yes=yes)
        api.delete(_path(name, "/oidc"))
    output.say(f"{name} is not bound to a provider")
