"""`pilotwave learn`: training plans of a fleet: sign, start, watch, end, take the result."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pilotwave_cli import output
from pilotwave_cli.client import connect
from pilotwave_cli.confirm import Yes, count, sure
from pilotwave_cli.errors import Failed
from pilotwave_cli.learn import fetch_command, plan_command
from pilotwave_cli.learn.find_round import find_round
from pilotwave_cli.output import Json
from pilotwave_protocol.names import check_group, check_model, check_plan

cli = typer.Typer(no_args_is_help=True, help="Have devices learn without giving examples away.")
cli.command("plan")(plan_command.plan)
cli.command("drop")(plan_command.drop)
cli.command("fetch")(fetch_command.fetch)
Model = Annotated[str, typer.Argument(help="The model.")]
Plan = Annotated[str, typer.Argument(help="The plan's name.")]


@cli.command("start")
def start(
    model: Model,
    plan: Plan,
    group: Annotated[str, typer.Option("--group", help="Whose devices may take part.")],
) -> None:
    """Have a group's devices learn by a plan, those whose owners allow it."""
    named = {"model": check_model(model), "plan": check_plan(plan), "group": check_group(group)}
    with connect() as api:
        made = api.post("/learning/rounds", named)
    output.say(
        f"round {made['id']} is open until {output.when(made['ends_at'])}; it takes"
        f" {count(made['least_devices'], 'device')}"
    )


@cli.command("status")
def status(
    model: Annotated[str | None, typer.Argument(help="Only of this model.")] = None,
    plan: Annotated[str | None, typer.Argument(help="Who took part in this plan's round.")] = None,
    as_json: Json = False,
) -> None:
    """List rounds, or who took part in one."""
    with connect() as api:
        if model is not None and plan is not None:
            found = find_round(api, model, plan)
            _show_one(found, api.get(f"/learning/rounds/{found['id']}/devices"), as_json)
            return
        rows = list(api.pages("/learning/rounds", model=model))
    columns: list[output.Column] = [
        ("id", "id"),
        ("model", "model"),
        ("plan", "plan"),
        ("group", "group"),
        ("state", "state"),
        ("devices", lambda r: f"{r['devices']} of {r['least_devices']} or more"),
        ("examples", "examples"),
        ("ends", lambda r: output.when(r["ends_at"])),
    ]
    output.table("Rounds", rows, columns, as_json=as_json)


def _show_one(found: dict[str, Any], devices: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        output.show_json({**found, "updates": devices})
        return
    shares = {key: found[key] for key in ("right", "right_with_all") if found[key] is not None}
    told = {key.replace("_", " "): f"{share:.1%}" for key, share in shares.items()}
    facts = {key: found[key] for key in ("state", "detail", "group", "devices", "examples")}
    output.facts(f"Round {found['id']}", list({**facts, **told}.items()))
    columns: list[output.Column] = [
        ("device", "device"),
        ("examples", "examples"),
        ("sent", lambda r: output.when(r["received_at"])),
        ("left out", lambda r: "" if r["gain"] is None else f"it cost {r['gain']:.1%}"),
    ]
    output.table("", devices, columns)


@cli.command("end")
def end(model: Model, plan: Plan, yes: Yes = False) -> None:
    """End a plan's round now; its result is made of what came."""
    with connect() as api:
        found = find_round(api, model, plan)
        told = f"{count(found['devices'], 'device')} took part; no other can. A plan has one round."
        sure(told, f"End round {found['id']}?", yes=yes)
        api.post(f"/learning/rounds/{found['id']}/end")
        after = find_round(api, model, plan)
    if after["state"] == "failed":
        raise Failed(f"round {after['id']} failed: {after['detail']}")
    left = f", {after['left_out']} left out" if after["left_out"] else ""
    output.say(
        f"round {after['id']} is {after['state']}: {count(after['devices'], 'device')}{left}"
    )
