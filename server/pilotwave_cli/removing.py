"""Ask before a model is taken off devices, then order it."""

from __future__ import annotations

import typer

from pilotwave_cli import output
from pilotwave_cli.client import Api
from pilotwave_cli.errors import Failed


def remove(api: Api, path: str, model: str, whose: str, *, yes: bool) -> None:
    """Say whom it concerns, ask, and order the removal; `path` is the removal's in the API."""
    found = api.get(path)
    count, can = found["have_it"], found["can_remove"]
    devices = "1 device runs" if count == 1 else f"{count} devices run"
    output.say(f"{devices} {model}; its files go, and applications there lose it.")
    if can < count:
        output.warn(f"{count - can} of them cannot remove models: update their agents")
    if not yes and not typer.confirm(f"Remove {model} from {whose}?"):
        raise Failed("nothing was changed")
    api.put(path)
    output.say(f"{model} is ordered off {whose}; assign it again to bring it back")
