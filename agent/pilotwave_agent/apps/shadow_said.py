"""Why versions in shadow are not compared, as applications say it in their heartbeats."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from pilotwave_agent.apps import heartbeats
from pilotwave_agent.apps.heartbeats import App
from pilotwave_agent.core.state import DeviceState
from pilotwave_agent.host.layout import folder_name
from pilotwave_protocol.states import ModelState

NONE_RUNS = "no application runs here that could try it"
NONE_TRIES = "no application here says that it tries it"


def shadows_said(live: Path, state: DeviceState, users: heartbeats.Users) -> dict[str, str]:
    """Return, by model with a version in shadow, what keeps it from being compared; a model that
    nothing is said of is compared, or is about to be."""
    return dict(_all(live, state, users))


def _all(live: Path, state: DeviceState, users: heartbeats.Users) -> Iterator[tuple[str, str]]:
    for slot in state.models.values():
        if slot.state is ModelState.SHADOWING and slot.candidate is not None:
            apps = heartbeats.read(live / slot.model, users.get(slot.model))
            sentence = why_not_compared([a for a in apps if a.lives()], folder_name(slot.candidate))
            if sentence:
                yield slot.model, sentence


def why_not_compared(living: Sequence[App], candidate: str) -> str:
    """Say what keeps a candidate from being compared, as the applications that live say it; empty
    where nothing does."""
    if not living:
        return NONE_RUNS
    tries = [app for app in living if app.shadow and app.shadow.name == candidate]
    if not tries:
        return NONE_TRIES
    for app in tries:
        if app.shadow and app.shadow.sentence:
            return f"the application {app.app} says: {app.shadow.sentence}"
    return ""
