"""Take an overlay back by hand: the version's own answers count again.

Its examples are not tried again: another overlay takes as many new ones as the plan asks for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from pilotwave_agent import overlays, permissions
from pilotwave_agent.host import lock
from pilotwave_agent.host.disk import Disk
from pilotwave_agent.host.layout import Layout
from pilotwave_agent.settings.config import Config
from pilotwave_protocol.errors import PilotwaveError
from pilotwave_protocol.fields import format_time
from pilotwave_protocol.names import check_model

_WAIT_S = 10.0


class NoOverlay(PilotwaveError):
    """The model's answers are the version's own."""

    code = "no_overlay"


def drop_overlay(config: Config, model: str) -> str:
    """Take it back and return a sentence. Raises `NoOverlay`, `Held`."""
    layout, disk = Layout(config.data_dir), Disk()
    permissions.check(layout)
    with lock.held(layout.work_lock, "the agent's work", wait_s=_WAIT_S):
        state = overlays.read(disk, layout, check_model(model))
        if state is None or not state.overlay:
            raise NoOverlay(f"{model}: there is no overlay")
        newest = max(disk.names(layout.examples(model)), default=state.until)
        state = replace(state, after=newest, until=newest)
        overlays.drop(disk, layout, model, state, "it was taken back by hand")
    return f"{model}: the version's own answers count again"


def overlays_of(config: Config) -> list[dict[str, Any]]:
    """Return what `status` says of overlays, and of models that were not adapted."""
    layout, disk = Layout(config.data_dir), Disk()
    rows = []
    for name in disk.names(layout.all_adapting):
        model = name.removesuffix(".json")
        state, found = overlays.read(disk, layout, model), overlays.in_use(disk, layout, model)
        if state is None:
            continue
        row: dict[str, Any] = {"model": model, "detail": state.detail, "since": None}
        if found is not None:
            shown = ("version", "variant", "examples", "held_out", "better", "worse", "gain")
            row |= {key: getattr(found, key) for key in shown}
            row |= {"since": format_time(found.since), "distance": found.distance}
        rows.append(row)
    return rows


def overlay_lines(row: dict[str, Any]) -> Iterator[str]:
    """Yield the lines for people."""
    if row["since"] is None:
        yield f"{row['model']}: no overlay: {row['detail']}"
        return
    yield f"{row['model']}: an overlay of this device's own since {row['since']}"
    yield (
        f"  of {row['held_out']} held-out labels {row['better']} better, {row['worse']} worse:"
        f" right at least {float(row['gain']):.1%} more often; distance {row['distance']}"
    )
