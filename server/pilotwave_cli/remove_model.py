"""Ask before a model is taken off devices, then order it."""

from __future__ import annotations

from pilotwave_cli import output
from pilotwave_cli.client import Api
from pilotwave_cli.confirm import sure


def remove(api: Api, path: str, model: str, whose: str, *, yes: bool) -> None:
    """Say whom it concerns, ask, and order the removal; `path` is the removal's in the API."""
    found = api.get(path)
    count, can = found["have_it"], found["can_remove"]
    devices = "1 device runs" if count == 1 else f"{count} devices run"
    if can < count:
        output.warn(_cannot(count - can, count))
    told = f"{devices} {model}; its files go, and applications there lose it."
    sure(told, f"Remove {model} from {whose}?", yes=yes)
    api.put(path)
    output.say(f"{devices} {model}: it is ordered off {whose}; assign it again to bring it back")


def _cannot(number: int, count: int) -> str:
    who = "it" if count == 1 else f"{number} of them"
    agents = "its agent" if number == 1 else "their agents"
    return f"{who} cannot remove models: update {agents}"
