"""Ask before what cannot be undone, or what concerns many devices at once.

The question names how many it concerns and what follows. `--yes` answers it; where nobody can
answer, the command refuses and changes nothing. Only what at most FEW devices feel goes on there,
and says what follows: a script sets up a small fleet, or stops a rollout at its canary.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from pilotwave_cli import output
from pilotwave_cli.client import Api
from pilotwave_cli.errors import CliError, Failed

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


FEW = 5


def sure(consequence: str, question: str, *, yes: bool, few: bool = False) -> None:
    """Say what follows and go on only with a yes; `Failed` or `CliError` leave all as it is.

    `few`: at most FEW devices feel it, so only a person is asked; a script is told.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        if few:
            output.warn(consequence)
            return
        raise CliError(f"{consequence} {question} There is no terminal to answer: use --yes")
    output.say(consequence)
    if not typer.confirm(question):
        raise Failed("nothing was changed")


def must_be_listed(api: Api, path: str, key: str, value: str, what: str) -> None:
    """Fail before a question about a thing that is not there; `path` lists the things."""
    if all(str(row[key]) != value for row in api.pages(path)):
        raise Failed(f"there is no {what} {value}")


def count(number: int, what: str = "device") -> str:
    """Say a number of things: `1 device`, `12 devices`."""
    return f"{number} {what if number == 1 else what + 's'}"


def about_rollout(api: Api, rollout: str, verb: str) -> tuple[str, str, bool]:
    """Return what a step of a rollout brings about, the question, and whether few devices feel it
    (`sure`): a wave that opens is never few."""
    found = api.get(f"/rollouts/{rollout}")
    took = sum(wave["healthy"] + wave["in_flight"] + wave["failed"] for wave in found["waves"])
    what = f"{found['model']} {found['version']} to {found['group']}"
    have = f"{rollout} brings {what}; {count(took)} took it or {_are(took)} about to."
    match verb:
        case "rollback":
            back = "It goes" if took == 1 else "They go"
            after = (
                f"{back} back to the version before, and {found['group']} is not offered it again."
            )
            return f"{have} {after}", f"Roll {rollout} back?", took <= FEW
        case "abort":
            keep = "It keeps" if took == 1 else "They keep"
            after = f"{keep} it, no other device gets it, and the rollout cannot be resumed."
            return f"{have} {after}", f"Abort {rollout}?", took <= FEW
    return f"{have} {_next(found)}", f"Open the next wave of {rollout}?", False


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


def about_assignment(api: Api, group: str, model: str, version: str) -> tuple[str, str, bool]:
    """Return whom an assignment concerns, where the version was taken back, the question, and
    whether that is few devices (`sure`)."""
    devices = api.get(f"/groups/{group}")["devices"]
    told = f"{count(devices)} of {group} {'gets' if devices == 1 else 'get'} {model} {version} "
    told += "at once, without waves and gates."
    back = taken_back(api, model, version)
    few = devices <= FEW and not back
    return " ".join([told, *back]), f"Assign {model} {version} to {group}?", few


def taken_back(api: Api, model: str, version: str) -> list[str]:
    """Return a sentence for each rollout that rolled the version back, the newest first."""
    states = ("rolling_back", "rolled_back")
    found = [r for s in states for r in api.pages("/rollouts", most=500, model=model, state=s)]
    mine = [r for r in found if r["version"] == version]
    return [f"It was rolled back in {r['id']} ({r['group']})." for r in mine]


def sure_of_new(api: Api, group: str, model: str, version: str, *, yes: bool) -> None:
    """Ask before a rollout of a version that was rolled back anywhere."""
    back = [] if yes else taken_back(api, model, version)
    if back:
        told = " ".join([f"{group} gets {model} {version} in waves.", *back])
        sure(told, f"Create a rollout of {model} {version} to {group}?", yes=False)


def sure_to_go_on(api: Api, rollout: str, verb: str) -> None:
    """Ask before a rollout goes on whose version was rolled back meanwhile."""
    found = api.get(f"/rollouts/{rollout}")
    back = taken_back(api, found["model"], found["version"])
    if back:
        what = f"{rollout} brings {found['model']} {found['version']} to {found['group']}."
        sure(" ".join([what, *back]), f"{verb.capitalize()} {rollout}?", yes=False)
