"""`pilotwave login` and `pilotwave status`: which server, and how the fleet stands."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from pilotwave_cli import config, output
from pilotwave_cli.client import Api, connect
from pilotwave_cli.config import Config
from pilotwave_cli.errors import CliError
from pilotwave_cli.output import Json

SOON_DAYS = 14
_MAX_TOKEN = 4096


def add_to(cli: typer.Typer) -> None:
    """Add the commands that stand at the top."""
    cli.command("login")(login)
    cli.command("status")(status)


def login(
    url: Annotated[
        str, typer.Argument(help="Address of the server, such as https://fleet.example.org.")
    ],
    token: Annotated[
        str | None, typer.Option("--token", help="Token. [default: ask, or read it from a pipe]")
    ] = None,
) -> None:
    """Keep a server's address and your token in the configuration file."""
    address = config.check_url(url)
    token = config.check_token((_asked() if token is None else token).strip())
    with Api(Config(address, token, config.keys_dir())) as api:
        me = api.get("/whoami")
    where = config.save(address, token)
    output.say(f"logged in to {address} as {me['name']} ({me['role']}); kept in {where}")


def _asked() -> str:
    """The token, typed without an echo at a terminal, or the first line of a pipe or file."""
    if sys.stdin.isatty():
        return str(typer.prompt("Token", hide_input=True))
    told = sys.stdin.readline(_MAX_TOKEN)
    if not told.strip():
        raise CliError("no token came by standard input; give one there or by --token")
    return told


def status(as_json: Json = False) -> None:
    """Show the fleet: devices by state, models, days to expiry of each trust role."""
    with connect() as api:
        found = api.get("/status")
    if as_json:
        output.show_json(found)
        return
    counts = [(k, v) for k, v in found.items() if not isinstance(v, (dict, list))]
    states = found.get("devices", {})
    output.facts("Fleet", [*counts, ("devices", states)])
    roles = found.get("roles", [])
    columns: list[output.Column] = [
        ("role", "role"),
        ("version", "version"),
        ("expires", lambda r: output.when(r.get("expires_at"))),
        ("days left", "days_left"),
    ]
    output.table("Trust", roles, columns)
    for notice in found.get("notices", []):
        output.warn(f"{notice['object']} {notice['sentence']}")
    tell_ahead(found)
    for role in roles:
        if role["days_left"] < SOON_DAYS and role["role"] not in {"snapshot", "timestamp"}:
            output.warn(
                f"{role['role']} expires in {role['days_left']} days; "
                f"run `pilotwave renew --role {role['role']}`"
            )


def tell_ahead(found: dict[str, Any]) -> None:
    """Say which devices are ahead of the server, and what helps."""
    if found.get("ahead"):
        output.warn(
            f"{found['ahead']['sentence']}. If the server was restored, run "
            "`pilotwave-server restore --data FOLDER` there"
        )
    for role in found.get("roles_behind", []):
        name, seen = role["role"], role["seen"]
        output.warn(
            f"{name}: devices know document {seen}, the server has {role['here']}; sign past it "
            f"(`pilotwave renew --role {name} --past {seen}`), or `pilotwave keys rotate online`"
        )
