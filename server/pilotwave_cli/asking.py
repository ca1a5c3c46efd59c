"""Ask before what cannot be undone, or what concerns many devices at once.

The question names how many it concerns and what follows. `--yes` answers it; where nobody can
answer, the command refuses and changes nothing.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from pilotwave_cli import output
from pilotwave_cli.client import Api
from pilotwave_cli.errors import CliError, Failed

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def sure(consequence: str, question: str, *, yes: bool) -> None:
    """Say what follows and go on only with a yes; `Failed` or `CliError` leave all as it is."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise CliError(f"{consequence} {question} There is no terminal to answer: use --yes")
    output.say(consequence)
    if not typer.confirm(question):
        raise Failed("nothing was changed")


def count(number: int, what: str = "device") -> str:
    """Say a number of things: `1 device`, `12 devices`."""
    return f"{number} {what if number == 1 else what + 's'}"


def about_rollout(api: Api, rollout: str, verb: str) -> tuple[str, str]:
    """Return what a step of a rollout brings about, and the question."""
    found = api.get(f"/rollouts/{rollout}")
    took = sum(wave["healthy"] + wave["in_flight"] + wave["failed"] for wave in found["waves"])
    what = f"{found['model']} {found['version']} to {found['group']}"
    have = f"{rollout} brings {what}; {count(took)} took it or {_are(took)} about to."
    match verb:
        case "rollback":
            after = (
                f"They go back to the version before, and {found['group']} is not offered it again."
            )
            return f"{have} {after}", f"Roll {rollout} back?"
        case "abort":
            after = "They keep it, no other device gets it, and the rollout cannot be resumed."
            return f"{have} {after}", f"Abort {rollout}?"
    return f"{have} {_next(found)}", f"Open the next wave of {rollout}?"


def _next(found: dict[str, Any]) -> str:
    waves, now = found["waves"], found["wave"]
    if now + 1 >= len(waves):
        return "There is no further wave."
    verdict = waves[now]["verdict"] if now >= 0 else None
    said = (
        f"Its gate says {verdict['word']}: {verdict['sentence']}." if verdict else "No gate spoke."
    )
    return (
        f"{said} The next wave takes {waves[now + 1]['takes']}, although its gate has not passed."
    )


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def about_assignment(api: Api, group: str, model: str, version: str) -> tuple[str, str]:
    """Return whom an assignment concerns, where the version was taken back, and the question."""
    devices = api.get(f"/groups/{group}")["devices"]
    told = f"{count(devices)} of {group} {'gets' if devices == 1 else 'get'} {model} {version} "
    told += "at once, without waves and gates."
    for rollout in api.pages("/rollouts", most=500, model=model):
        if rollout["version"] == version and rollout["state"] in ("rolling_back", "rolled_back"):
            told += f" It was rolled back in {rollout['id']} ({rollout['group']})."
    return told, f"Assign {model} {version} to {group}?"
