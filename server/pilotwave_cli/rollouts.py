"""`pilotwave rollouts`: bring a version to a group in waves, watch it, stop it, take it back."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from pilotwave_cli import output
from pilotwave_cli.bytes_and_sites import sent_of
from pilotwave_cli.client import Api, Done, connect, twice
from pilotwave_cli.confirm import Yes, about_rollout, sure, sure_of_new, sure_to_go_on
from pilotwave_cli.errors import ApiError, CliError
from pilotwave_cli.output import Json
from pilotwave_cli.policies import faults_of, read_policy_file
from pilotwave_cli.print_rollout import show_created, show_decisions, show_preview, show_rollout
from pilotwave_cli.tracing import traced
from pilotwave_protocol import names

cli = typer.Typer(
    help="Create, watch and control rollouts of versions to groups.", no_args_is_help=True
)

Rollout = Annotated[str, typer.Argument(help="The rollout, like r17.")]
Reason = Annotated[
    str, typer.Option("--reason", help="Reason, kept in the history of the rollout.")
]
Limit = Annotated[int, typer.Option(min=1, max=1_000_000, help="Show at most this many.")]


# these ask only where the version was rolled back in another rollout
GOES_ON = ("approve", "start", "resume")


def _id(rollout: str) -> str:
    if not re.fullmatch(r"r[1-9][0-9]{0,17}", rollout):
        raise CliError(f"expected a rollout like r17; got {ascii(rollout)[:40]}")
    return rollout


@cli.command("create")
def create(
    model: Annotated[str, typer.Argument(help="The model.")],
    version: Annotated[str, typer.Argument(help="The version.")],
    group: Annotated[str, typer.Option("--group", help="The group that gets it.")],
    policy: Annotated[
        str | None, typer.Option("--policy", help="Name of the policy. [standard]")
    ] = None,
    policy_file: Annotated[
        Path | None, typer.Option("--policy-file", help="File with a policy for this rollout only.")
    ] = None,
    description: Annotated[str, typer.Option("--description", help="Note for people.")] = "",
    start: Annotated[bool, typer.Option("--start", help="Start at once.")] = False,
    start_at: Annotated[
        str | None,
        typer.Option(help="Start automatically at this time, such as 2026-11-30T02:00:00Z."),
    ] = None,
    end_at: Annotated[
        str | None, typer.Option(help="Pause the rollout if it is not complete by then.")
    ] = None,
    salt: Annotated[
        str | None, typer.Option(help="Reuse the salt of a dry run, to get the same draw.")
    ] = None,
    allow_empty: Annotated[
        bool, typer.Option("--allow-empty", help="Allow an empty group or canary wave.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show who would get it in which wave, and create nothing."),
    ] = False,
    limit: Limit = 50,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Create a rollout of a version to a group, under a policy."""
    if policy is not None and policy_file is not None:
        raise CliError("give --policy or --policy-file, not both")
    body: dict[str, Any] = {
        "group": names.check_group(group),
        "model": names.check_model(model),
        "version": names.check_version(version),
        "start_at": start_at,
        "end_at": end_at,
        "salt": salt,
        "allow_empty": allow_empty,
    }
    if policy_file is not None:
        body["policy_text"] = read_policy_file(policy_file)
    else:
        body["policy"] = policy or "standard"
    if dry_run:
        with connect() as api:
            told = {**body, "limit": min(limit, 500)}
            found = _ask(api, "/rollouts/preview", told, done=twice)
        _show(found, as_json, show_preview)
        return
    body |= {"description": description, "start": start}
    with connect() as api:
        sure_of_new(api, group, model, version, yes=yes)
        with traced("create rollout", model=model, version=version):
            found = _ask(api, "/rollouts", body, done=_created(api, body))
    _show(found, as_json, show_created)


def _ask(api: Api, path: str, body: dict[str, Any], *, done: Done) -> dict[str, Any]:
    try:
        found: dict[str, Any] = api.post(path, body, done=done)
    except ApiError as error:
        raise faults_of(error) from None
    return found


def _created(api: Api, body: dict[str, Any]) -> Done:
    """Look for a rollout as it is wished, which was not there before."""

    def newest() -> dict[str, Any]:
        named = {key: body[key] for key in ("group", "model")}
        return next(iter(api.pages("/rollouts", most=1, **named)), {})

    before = newest().get("id")

    def look() -> dict[str, Any] | None:
        found = newest()
        same = all(found.get(key) == body[key] for key in ("version", "description"))
        if not same or found["id"] == before:
            return None
        return {**api.get(f"/rollouts/{found['id']}"), "warnings": []}

    return look


def _show(found: dict[str, Any], as_json: bool, shown: Any) -> None:
    if as_json:
        output.show_json(found)
    else:
        shown(found)


@cli.command("list")
def list_(
    group: Annotated[str | None, typer.Option("--group", help="Only to this group.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="Only of this model.")] = None,
    state: Annotated[str | None, typer.Option("--state", help="Like running, paused.")] = None,
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """List rollouts, the newest first."""
    with connect() as api:
        rows = list(api.pages("/rollouts", most=limit, group=group, model=model, state=state))
    columns: list[output.Column] = [
        ("rollout", "id"),
        ("state", lambda r: r["state"].replace("_", " ")),
        ("model", lambda r: f"{r['model']} {r['version']}"),
        ("group", "group"),
        ("wave", lambda r: f"{r['wave'] + 1} of {r['wave_count']}"),
        ("policy", "policy"),
        ("created", lambda r: output.when(r["created_at"])),
        ("why", "reason"),
    ]
    output.table("Rollouts", rows, columns, as_json=as_json)


@cli.command("show")
def show(rollout: Rollout, as_json: Json = False) -> None:
    """Show a rollout: its waves with counts and verdicts, and what was decided last."""
    with connect() as api:
        found = api.get(f"/rollouts/{_id(rollout)}")
        found["bytes"] = sent_of(api, "rollout", rollout=_id(rollout))
    _show(found, as_json, show_rollout)


@cli.command("preview")
def preview(
    rollout: Rollout,
    wave: Annotated[int | None, typer.Option(min=1, help="Only this wave, from 1.")] = None,
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """Show who is in which wave of a rollout, and which variant each gets."""
    with connect() as api:
        index = None if wave is None else wave - 1
        found = api.get(f"/rollouts/{_id(rollout)}/preview", wave=index, limit=min(limit, 500))
    _show(found, as_json, show_preview)


@cli.command("devices")
def devices(
    rollout: Rollout,
    outcome: Annotated[
        str | None, typer.Option("--outcome", help="Like healthy, failed, silent.")
    ] = None,
    limit: Limit = 200,
    as_json: Json = False,
) -> None:
    """Show the outcome of a rollout on each device that took part."""
    with connect() as api:
        path = f"/rollouts/{_id(rollout)}/devices"
        rows = list(api.pages(path, most=limit, outcome=outcome))
    columns: list[output.Column] = [
        ("device", "device"),
        ("wave", lambda r: str(r["wave"] + 1)),
        ("outcome", lambda r: r["outcome"].replace("_", " ")),
        ("switched", lambda r: output.when(r["switched_at"])),
        ("left it", lambda r: output.when(r["left_at"]) if r["left_at"] else "-"),
        ("before", "came_from"),
        ("reason", "reason"),
        ("detail", "detail"),
    ]
    output.table("Devices", rows, columns, as_json=as_json)


@cli.command("decisions")
def decisions(rollout: Rollout, limit: Limit = 100, as_json: Json = False) -> None:
    """Show every decision about a rollout with its reason, newest first."""
    with connect() as api:
        rows = list(api.pages(f"/rollouts/{_id(rollout)}/decisions", most=limit))
    if as_json:
        output.show_json(rows)
    else:
        show_decisions(rows)


def _step(rollout: str, verb: str, reason: str, as_json: bool, *, ask: bool = False) -> None:
    with traced(f"{verb} rollout", rollout=rollout), connect() as api:
        if ask and verb in GOES_ON:
            sure_to_go_on(api, _id(rollout), verb)
        elif ask:
            told, asked, few = about_rollout(api, _id(rollout), verb)
            sure(told, asked, yes=False, few=few)
        done = _stepped_by(api, _id(rollout), verb)
        found = api.post(f"/rollouts/{_id(rollout)}/{verb}", {"reason": reason}, done=done)
    _show(found, as_json, _stepped)


def _stepped_by(api: Api, rollout: str, verb: str) -> Done:
    """Look for a decision of somebody's to take the step, which was not there before."""

    def taken(found: dict[str, Any]) -> list[str]:
        made = (d for d in found["decisions"] if d["actor"] != "server")
        return [d["at"] for d in made if d["action"] == verb]

    before = taken(api.get(f"/rollouts/{rollout}"))

    def look() -> dict[str, Any] | None:
        found: dict[str, Any] = api.get(f"/rollouts/{rollout}")
        return found if taken(found)[:1] not in ([], before[:1]) else None

    return look


def _stepped(found: dict[str, Any]) -> None:
    state = found["state"].replace("_", " ")
    output.say(f"{found['id']} ({found['model']} {found['version']} to {found['group']}): {state}")
    if found["decisions"]:
        output.say(f"  {output.plain(found['decisions'][0]['sentence'])}")


@cli.command("approve")
def approve(rollout: Rollout, reason: Reason = "", yes: Yes = False, as_json: Json = False) -> None:
    """Approve a rollout created by someone else; it starts now or at its start time."""
    _step(rollout, "approve", reason, as_json, ask=not yes)


@cli.command("start")
def start(rollout: Rollout, reason: Reason = "", yes: Yes = False, as_json: Json = False) -> None:
    """Start a draft, or a scheduled rollout before its time."""
    _step(rollout, "start", reason, as_json, ask=not yes)


@cli.command("pause")
def pause(rollout: Rollout, reason: Reason = "", as_json: Json = False) -> None:
    """Pause a rollout: no further device gets the version; those that have it keep it."""
    _step(rollout, "pause", reason, as_json)


@cli.command("resume")
def resume(rollout: Rollout, reason: Reason = "", yes: Yes = False, as_json: Json = False) -> None:
    """Resume a paused rollout; the gate that paused it is ignored for this wave."""
    _step(rollout, "resume", reason, as_json, ask=not yes)


@cli.command("next")
def next_(rollout: Rollout, reason: Reason = "", yes: Yes = False, as_json: Json = False) -> None:
    """Open the next wave now, whatever the gates say."""
    _step(rollout, "next", reason, as_json, ask=not yes)


@cli.command("abort")
def abort(rollout: Rollout, reason: Reason = "", yes: Yes = False, as_json: Json = False) -> None:
    """Abort a rollout; devices keep what they have installed."""
    _step(rollout, "abort", reason, as_json, ask=not yes)


@cli.command("rollback")
def rollback(rollout: Rollout, reason: Reason, yes: Yes = False, as_json: Json = False) -> None:
    """Roll its devices back and quarantine the version for the group."""
    _step(rollout, "rollback", reason, as_json, ask=not yes)


@cli.command("retry")
def retry(rollout: Rollout, reason: Reason = "", as_json: Json = False) -> None:
    """Retry the devices on which it failed."""
    _step(rollout, "retry", reason, as_json)
