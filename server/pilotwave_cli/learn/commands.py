"""`pilotwave learn`: training plans of a fleet: sign, start, watch, end, take the result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pilotwave_cli import output
from pilotwave_cli.client import Api, connect
from pilotwave_cli.confirm import Yes, count, sure
from pilotwave_cli.errors import ApiError, Failed
from pilotwave_cli.learn import fetch_command, plan_command
from pilotwave_cli.learn.find_experiment import find_experiment, newest_experiment
from pilotwave_cli.output import Json
from pilotwave_cli.policies import faults_of, read_policy_file
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
    policy: Annotated[
        str, typer.Option(help="Whom to ask when: everyone, careful, or a file of YAML.")
    ] = "everyone",
) -> None:
    """Have a group's devices learn by a plan, those whose owners allow it."""
    body = {"model": check_model(model), "plan": check_plan(plan), "group": check_group(group)}
    if "." in policy or "/" in policy:
        body["policy_text"] = read_policy_file(Path(policy))
    else:
        body["policy"] = policy
    try:
        with connect() as api:
            made = _begin(api, body)
    except ApiError as error:
        raise faults_of(error) from None
    waves = made["policy"]["waves"]
    output.say(
        f"experiment {made['id']} runs, with wave {waves[0]['name']} of {len(waves)}; round 1 is"
        f" open until {output.when(made['round']['ends_at'])} and takes"
        f" {count(made['least_devices'], 'device')}"
    )


def _begin(api: Api, body: dict[str, str]) -> dict[str, Any]:
    before = newest_experiment(api, body["model"], body["plan"])

    def begun() -> dict[str, Any] | None:
        found = newest_experiment(api, body["model"], body["plan"])
        return None if found is None or (before and found["id"] == before["id"]) else found

    made: dict[str, Any] = api.post("/learning/experiments", body, done=begun)
    return made


@cli.command("status")
def status(
    model: Annotated[str | None, typer.Argument(help="Only of this model.")] = None,
    plan: Annotated[str | None, typer.Argument(help="Who took part in this plan's rounds.")] = None,
    as_json: Json = False,
) -> None:
    """List experiments, or show one with who took part in its newest round."""
    with connect() as api:
        if model is not None and plan is not None:
            where = f"/learning/experiments/{find_experiment(api, model, plan)['id']}"
            found = {**api.get(where), "masked": api.get(f"{where}/groups")}
            _show_one(found, api.get(f"{where}/devices"), as_json)
            return
        rows = list(api.pages("/learning/experiments", model=model))
    columns: list[output.Column] = [
        ("id", "id"),
        ("model", "model"),
        ("plan", "plan"),
        ("group", "group"),
        ("state", "state"),
        ("round", lambda r: f"{r['round']['number']} of {r['plan_rounds']}"),
        ("devices", lambda r: f"{r['round']['devices']} of {r['least_devices']} or more"),
        ("examples", lambda r: r["round"]["examples"]),
        ("ends", lambda r: output.when(r["round"]["ends_at"])),
    ]
    output.table("Experiments", rows, columns, as_json=as_json)


def _show_one(found: dict[str, Any], devices: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        output.show_json({**found, "updates": devices})
        return
    facts = {key: found[key] for key in ("state", "detail", "method", "aggregate", "group")}
    facts["result"] = "" if found["result"] is None else f"of round {found['result']}"
    wave = found["policy"]["waves"][found["wave"]]
    facts["wave"] = f"{wave['name']}, {count(found['wave_devices'], 'device')}"
    facts["opened"] = f"{output.when(found['opened_at'])} by {found['opened_by']}"
    output.facts(f"Experiment {found['id']}", list(facts.items()))
    rounds: list[output.Column] = [
        ("round", "number"),
        ("state", "state"),
        ("devices", "devices"),
        ("examples", "examples"),
        ("waiting", "waiting"),
        ("declined", "declined"),
        ("failed", "failed"),
        ("left out", lambda r: "" if r["left_out"] is None else r["left_out"]),
        ("right", lambda r: _share(r["right"])),
        ("right with all", lambda r: _share(r["right_with_all"])),
    ]
    output.table("", found["rounds"], rounds)
    absent: list[output.Column] = [
        ("devices", "devices"),
        ("take no part", "kind"),
        ("why", lambda r: (r["reason"] or "").replace("_", " ")),
        ("examples", lambda r: "" if r["examples"] is None else f"{r['examples']} or more"),
    ]
    output.table("", found["absent"], absent)
    if found["masked"]["groups"] or found["masked"]["waiting"]:
        _show_groups(found["masked"])
        return
    columns: list[output.Column] = [
        ("device", "device"),
        ("examples", "examples"),
        ("sent", lambda r: output.when(r["received_at"])),
        ("left out", lambda r: "" if r["gain"] is None else f"it cost {r['gain']:.1%}"),
    ]
    output.table("", devices, columns)


def _show_groups(masked: dict[str, Any]) -> None:
    columns: list[output.Column] = [
        ("group", "number"),
        ("phase", "phase"),
        ("until", lambda g: "" if g["phase"] in ("done", "lost") else output.when(g["ends_at"])),
        ("members", lambda g: " ".join(f"{m['device']}:{m['sent']}" for m in g["members"])),
        ("devices", "devices"),
        ("examples", "examples"),
        ("detail", lambda g: g["detail"] or _cost(g["gain"])),
    ]
    output.table("", masked["groups"], columns)
    waiting = len(masked["waiting"])
    if waiting:
        output.say(f"{count(waiting, 'device')} waiting for a group")


def _cost(gain: float | None) -> str:
    return "" if gain is None else f"left out: it cost {gain:.1%}"


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


@cli.command("end")
def end(model: Model, plan: Plan, yes: Yes = False) -> None:
    """End a plan's round now; its result is made of what came."""
    with connect() as api:
        found = find_experiment(api, model, plan)
        row, path = found["round"], f"/learning/experiments/{found['id']}"
        told = f"{count(row['devices'], 'device')} took part; no other can in this round."
        sure(told, f"End round {row['number']} of experiment {found['id']}?", yes=yes)

        def over() -> bool | None:
            now = api.get(path)["round"]
            return (now["number"], now["state"]) != (row["number"], "open") or None

        api.post(f"{path}/end", done=over)
        after = api.get(path)
    if after["state"] == "failed":
        raise Failed(f"experiment {after['id']} failed: {after['detail']}")
    ended = next(r for r in after["rounds"] if r["number"] == row["number"])
    left = f", {ended['left_out']} left out" if ended["left_out"] else ""
    newest = after["round"]["number"]
    following = f"; round {newest} is open" if newest > row["number"] else ""
    output.say(
        f"round {ended['number']} of experiment {after['id']} is {ended['state']}:"
        f" {count(ended['devices'], 'device')}{left}{following}"
    )


@cli.command("pause")
def pause(model: Model, plan: Plan) -> None:
    """Ask no more devices until `resume`; what still comes counts."""
    _step(model, plan, "pause")


@cli.command("resume")
def resume(model: Model, plan: Plan) -> None:
    """Ask devices again."""
    _step(model, plan, "resume")


@cli.command("stop")
def stop(model: Model, plan: Plan, yes: Yes = False) -> None:
    """Stop an experiment without a result of its open round."""
    with connect() as api:
        found = find_experiment(api, model, plan)
    row = found["round"]
    told = f"{count(row['devices'], 'device')} took part; their updates are deleted."
    sure(told, f"Stop experiment {found['id']}?", yes=yes)
    _step(model, plan, "stop")


def _step(model: str, plan: str, word: str) -> None:
    with connect() as api:
        found = find_experiment(api, model, plan)
        path = f"/learning/experiments/{found['id']}"

        def stepped() -> dict[str, Any] | None:
            now: dict[str, Any] = api.get(path)
            return now if now["state"] != found["state"] else None

        after = api.post(f"{path}/{word}", done=stepped)
    output.say(f"experiment {after['id']} is {after['state']}")
