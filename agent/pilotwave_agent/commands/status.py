"""Say what this device runs, and why: for people on a terminal, and as JSON for scripts."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from pilotwave_agent import identity
from pilotwave_agent.apps.shadow_said import shadows_said
from pilotwave_agent.check_in.build import status_of
from pilotwave_agent.commands.learn import learning, lines_of_learning
from pilotwave_agent.commands.overlay import overlay_lines, overlays_of
from pilotwave_agent.core.journal import read_state
from pilotwave_agent.hardware.texts import text
from pilotwave_agent.host import lock
from pilotwave_agent.host.layout import Layout
from pilotwave_agent.settings.config import Config
from pilotwave_protocol.states import ModelState


def status(config: Config) -> dict[str, Any]:
    """Return the device's state. Nothing is changed, and a running agent is not disturbed."""
    layout = Layout(config.data_dir)
    who = identity.load(layout)
    state = read_state(layout.journal)
    said = shadows_said(layout.live, state, config.app_users)
    found = status_of(state)
    for model in found["models"]:
        model["shadow_sentence"] = said.get(model["model"], "")
    return {
        "device": who.device,
        "fleet": who.fleet,
        "server": config.server,
        "data_dir": str(config.data_dir),
        "key": identity.key_id(who.key),
        "running": lock.holder(layout.run_lock) is not None,
        "confinement": text(layout.confinement),
        **found,
        "overlays": overlays_of(config),
        "learning": learning(config),
    }


def lines_of(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines for people."""
    running = "running" if found["running"] else "not running"
    yield f"{found['device']} of fleet {found['fleet']} at {found['server']}: agent {running}"
    yield f"the key of this device is {found['key']}"
    if found["confinement"]:
        yield f"self-tests: confinement {found['confinement']}"
    if not found["models"]:
        yield "no models yet"
    for model in found["models"]:
        yield from _model_lines(model)
    for overlay in found["overlays"]:
        yield from overlay_lines(overlay)
    if found["refusal"]:
        yield f"last directive refused: {found['refusal']['reason']}: {found['refusal']['detail']}"
    yield from lines_of_learning(found["learning"])
    if found["events_waiting"]:
        yield f"{found['events_waiting']} events wait for the server"


def _model_lines(model: Mapping[str, Any]) -> Iterator[str]:
    current = model["current"]
    runs = f"{current['version']} ({current['variant']})" if current else "nothing"
    since = _ago(time.time() - model["since"]) if model["since"] else ""
    if model["state"] == ModelState.SHADOWING:
        yield f"{model['model']}: runs {runs}"
        yield f"  tries {_tried(model, since)}"
        if model["shadow_sentence"]:
            yield f"  not compared: {model['shadow_sentence']}"
    else:
        yield f"{model['model']}: runs {runs}, {model['state'].replace('_', ' ')}{since}"
        if model["ordered"] and (not current or model["ordered"] != current["version"]):
            only = ", to be tried in shadow" if model["shadow"] else ""
            yield f"  ordered: {model['ordered']}{only}"
    for slot in ("previous", "last_healthy"):
        if model[slot] and model[slot] != current:
            yield f"  {slot.replace('_', ' ')}: {model[slot]['version']}"
    if model["reason"]:
        yield f"  {model['reason']}: {model['detail']}"


def _tried(model: Mapping[str, Any], since: str) -> str:
    candidate, terms = model["candidate"], model["shadow"]
    words = f"{candidate['version']} ({candidate['variant']}) in shadow{since}; it answers nobody"
    if terms is None:
        return words
    share, core = (f"{terms[key] * 100:.3g} %" for key in ("share", "cpu"))
    return f"{words}, sees {share} of the inputs and takes at most {core} of a core"


def _ago(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f" for {int(seconds // size)} {unit}"
    return f" for {max(int(seconds), 0)} s"
