"""`pilotwave simulate`: a fleet of virtual devices, for rehearsals (docs/simulator.md)."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from pilotwave_cli import output
from pilotwave_cli.client import connect
from pilotwave_cli.durations import Duration, pairs
from pilotwave_cli.errors import CliError, Failed
from pilotwave_cli.output import Json
from pilotwave_cli.shares import read_share
from pilotwave_cli.simulate.fleet import FleetOptions, Simulation
from pilotwave_cli.simulate.profile import Profile, Slice, read_profile
from pilotwave_protocol import names

ROOT_PATH = "/tuf/metadata/1.root.json"
MARK = "simulated"


def add_to(cli: typer.Typer) -> None:
    """Add the command that stands at the top."""
    cli.command("simulate")(simulate)


def simulate(
    devices: Annotated[int, typer.Option(min=1, max=100_000, help="How many.")] = 100,
    profile: Annotated[
        Path | None,
        typer.Option("--profile", help="YAML profile of the devices. [default: all healthy]"),
    ] = None,
    prefix: Annotated[
        str | None, typer.Option(help="Prefix of their names. [default: random]")
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", help="KEY=VALUE for each; repeatable.")
    ] = None,
    lasting: Annotated[
        str | None,
        typer.Option("--for", help="How long to run, such as 10m. [default: until Ctrl-C]"),
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(
            "--root", help="The fleet's root.json. [default: trust the server's first root]"
        ),
    ] = None,
    connections: Annotated[int, typer.Option(min=1, max=10_000, help="At the most.")] = 100,
    seed: Annotated[
        int | None, typer.Option(help="Seed for random choices, to repeat a run.")
    ] = None,
    learn: Annotated[
        str | None,
        typer.Option("--learn", help="Share that takes part in training plans, such as 80%."),
    ] = None,
    liars: Annotated[
        str | None,
        typer.Option("--learn-liars", help="Share of those whose labels are wrong, such as 5%."),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the devices in the fleet at the end.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run simulated devices against the server, over real HTTP."""
    begins = names.check_device(prefix or f"sim-{secrets.token_hex(2)}")
    labels = {MARK: begins, **pairs(label or [], "--label")}
    if len(labels) > 32:
        raise CliError("expected at most 32 labels")
    wish = FleetOptions(
        devices=devices,
        prefix=begins,
        profile=read_profile(profile) if profile else Profile((Slice("all", 1.0),)),
        labels=labels,
        seconds=Duration.parse(lasting).total_seconds() if lasting else None,
        connections=connections,
        seed=seed,
        keep=keep,
        learn=read_share("--learn", learn, whole=True) if learn else 0.0,
        lie=read_share("--learn-liars", liars, whole=True) if liars else 0.0,
    )
    with connect() as api:
        trusted = root.read_bytes() if root else _first_root(api.config.url)
        output.warn(f"{devices} devices {begins}-…; a group of them: --selector {MARK}={begins}")
        account = Simulation(wish, api, trusted, _show).run()
    if as_json:
        output.show_json(account)
    else:
        output.facts("Simulated", account.items())


def _first_root(url: str) -> bytes:
    try:
        answer = httpx.get(f"{url}{ROOT_PATH}", timeout=30)
    except httpx.HTTPError as error:
        raise Failed(f"{url} does not answer: {type(error).__name__}") from error
    if answer.status_code != 200:
        raise Failed(f"{url} has no root of trust yet: run `pilotwave keys init`")
    return answer.content


def _show(account: dict[str, Any]) -> None:
    if "enrolled" in account:
        output.warn(f"enrolled {account['enrolled']} of {account['devices']}")
        return
    counts = account["counts"]
    seen = {k: counts[k] for k in ("healthy", "failed", "rolled_back", "silent") if k in counts}
    asked = f"{counts.get('poll_304', 0)} polls unchanged, {counts.get('poll_200', 0)} changed"
    reported = f"{counts.get('check_in_200', 0)} check-ins"
    line = f"{output.plain(account['runs'])} | {output.plain(seen)} | {asked}, {reported}"
    trouble = f" | {account['last_trouble']}" if account["last_trouble"] else ""
    output.warn(line + trouble)
