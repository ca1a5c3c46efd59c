"""The overlay of a model: what this device adds to a version's scores, kept beside the version.

What is to be used stands in a file of the agent's own; the link that applications follow comes
after it, and is made to say the same by whoever works next. So a death at any moment leaves the
last overlay, the next one or none, and never half of one. The signed files are not touched.
Who calls holds the work lock.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from typing import Any

from pilotwave_agent.core.state import DeviceState, ModelSlot, made
from pilotwave_agent.host.disk import Disk
from pilotwave_agent.host.layout import Layout
from pilotwave_agent.host.log import say
from pilotwave_agent.learning import signed_plans
from pilotwave_agent.live.labels import ENDING
from pilotwave_agent.settings.config import Config
from pilotwave_protocol.errors import BadMessage
from pilotwave_protocol.learning.device_plan import DevicePlan
from pilotwave_protocol.learning.overlay import (
    FOLDER,
    MAX_OVERLAY_BYTES,
    Overlay,
    file_name,
    read_overlay,
)
from pilotwave_protocol.messages.check_in import Installed
from pilotwave_protocol.states import ModelState

_MARKS = ("after", "until", "judged", "trained")
JUDGE_EVERY, JUDGE_NEWEST = 10, 100
"""So many new labels have the overlay in use judged again, by so many of the newest: what it did
long ago does not make up for what it does now."""


@dataclass(frozen=True)
class Adapting:
    """How the adapting of one version by one plan stands. Examples are named by their files, whose
    names begin with the time: those up to `after` do not count any more, those up to `until` were
    tried, those up to `judged` were held against the overlay in use, which was made of those up to
    `trained`. `overlay` is the digest of the one to be used; empty: none, as `detail` says."""

    plan: str
    base: str
    variant: str
    tries: int = 0
    after: str = ""
    until: str = ""
    judged: str = ""
    trained: str = ""
    overlay: str = ""
    detail: str = ""


def read(disk: Disk, layout: Layout, model: str) -> Adapting | None:
    """Return what is known of a model's adapting."""
    try:
        return made(Adapting, json.loads(disk.read(layout.adapting(model))))
    except (OSError, ValueError, TypeError):
        return None


def decide(disk: Disk, layout: Layout, model: str, state: Adapting) -> None:
    """Write down what is so from here on; the link comes after it. May raise `OSError`."""
    path = layout.adapting(model)
    disk.make_dirs(path.parent)
    disk.write_atomic(path, json.dumps(asdict(state)).encode())
    settle(disk, layout, model)


def in_use(disk: Disk, layout: Layout, model: str) -> Overlay | None:
    """Return the overlay that the link names, if it is whole."""
    target = disk.read_link(layout.overlay(model))
    found = _file(disk, layout, model, target.rpartition("/")[2]) if target else None
    return found[0] if found else None


def content(disk: Disk, layout: Layout, model: str, digest: str) -> bytes | None:
    """Return the bytes of an overlay, if it is whole."""
    found = _file(disk, layout, model, file_name(digest)) if digest else None
    return found[1] if found else None


def _file(disk: Disk, layout: Layout, model: str, name: str) -> tuple[Overlay, bytes] | None:
    path = layout.overlays(model) / name
    if not 0 < (disk.size(path) or 0) <= MAX_OVERLAY_BYTES:
        return None
    try:
        raw = disk.read(path)
        return read_overlay(raw, name)[0], raw
    except (OSError, BadMessage):
        return None


def install(disk: Disk, layout: Layout, model: str, raw: bytes, state: Adapting) -> None:
    """Use an overlay: its file, then the decision, then the link. May raise `OSError`."""
    folder = layout.overlays(model)
    disk.make_dirs(folder)
    disk.write_atomic(folder / file_name(state.overlay), raw, 0o644)
    decide(disk, layout, model, state)


def drop(disk: Disk, layout: Layout, model: str, state: Adapting, why: str) -> None:
    """Use none any more. May raise `OSError`."""
    decide(disk, layout, model, replace(state, overlay="", trained="", detail=why))
    say(f"{model}: the overlay goes: {why}")


def settle(disk: Disk, layout: Layout, model: str) -> None:
    """Make link and files say what was decided. May raise `OSError`."""
    state, link = read(disk, layout, model), layout.overlay(model)
    wanted = file_name(state.overlay) if state and state.overlay else ""
    if wanted:
        disk.point(link, f"{FOLDER}/{wanted}")
    elif disk.read_link(link) is not None:
        disk.unlink(link)
        disk.sync_dir(link.parent)
    folder = layout.overlays(model)
    for name in disk.names(folder):
        if name != wanted:
            disk.unlink(folder / name)


def review(config: Config, disk: Disk, layout: Layout, state: DeviceState, wall: float) -> None:
    """Let go of overlays that may not be used any more, and mend what a death left. May raise
    `OSError`."""
    for name in disk.names(layout.all_adapting):
        model = name.removesuffix(".json")
        if name.startswith(".") or not (layout.models / model).is_dir():
            disk.unlink(layout.all_adapting / name)
        else:
            _review(config, disk, layout, state, model, wall)


def _review(
    config: Config, disk: Disk, layout: Layout, state: DeviceState, model: str, wall: float
) -> None:
    found = read(disk, layout, model)
    if found is not None and found.overlay:
        why = reason_to_go(config, disk, layout, state, model, found, wall)
        if why:
            drop(disk, layout, model, found, why)
            return
    # a clock that ran ahead must not have all that comes after it pass for old
    last = _named_at(wall)
    late: dict[str, Any] = {mark: last for mark in _MARKS if found and getattr(found, mark) > last}
    if found and late:
        decide(disk, layout, model, replace(found, **late))
        return
    settle(disk, layout, model)


def _named_at(wall: float) -> str:
    """Return the greatest name of an example that is left at this time, in epoch seconds."""
    return f"{int(wall * 1e9)}~"


def reason_to_go(
    config: Config,
    disk: Disk,
    layout: Layout,
    state: DeviceState,
    model: str,
    found: Adapting,
    wall: float,
) -> str:
    """Say why an overlay may not be used; nothing: it may."""
    current = state.slot(model).current
    if not (config.learn.allow and config.learn.adapt):
        return "the device's owner allows none"
    if current is None or (current.sha256, current.variant) != (found.base, found.variant):
        return "the version that it was made for runs no more"
    if state.memory.forbids(model, current.sha256, current.counter):
        return f"{current.version} was taken back by its publisher"
    plan = signed_plans.device_plan(disk, layout, model, found.plan)
    if plan is None:
        return "the model's publisher stands by its plan no more"
    if plan.deadline <= datetime.fromtimestamp(wall, timezone.utc):
        return f"plan {plan.plan} is over"
    if found.overlay and content(disk, layout, model, found.overlay) is None:
        return "its file was changed or is gone"
    return ""


@dataclass(frozen=True)
class Work:
    """What there is to do for one model: by which plan, for which version, where it stands, and
    which example is the `newest` that counts; whether to `judge` the overlay in use by later
    labels, and whether to try another (`refit`)."""

    plan: DevicePlan
    version: Installed
    state: Adapting
    newest: str
    judge: bool
    refit: bool


def work_for(disk: Disk, layout: Layout, slot: ModelSlot, now: datetime) -> Work | None:
    """Say what there is to do for a model; None: nothing."""
    current = slot.current
    if current is None or slot.state is not ModelState.HEALTHY:
        return None
    found = signed_plans.plan_for(disk, layout, slot.model, current, now)
    if found is None:
        return None
    digest, plan = found
    fresh = Adapting(digest, current.sha256, current.variant)
    state = read(disk, layout, slot.model) or fresh
    if (state.plan, state.base, state.variant) != (digest, current.sha256, current.variant):
        state = fresh
    last = _named_at(now.timestamp())
    names = [n for n in disk.names(layout.examples(slot.model)) if n.endswith(ENDING) and n <= last]
    judge = bool(state.overlay) and sum(n > state.judged for n in names) >= JUDGE_EVERY
    refit = sum(n > max(state.until, state.after) for n in names) >= plan.least_examples
    newest = names[-1] if names else ""
    return Work(plan, current, state, newest, judge, refit) if judge or refit else None
