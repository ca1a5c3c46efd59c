"""Show applications which candidate is to be tried beside the version that serves.

The journal says it first; the link `shadow` and the file `shadow.json` follow, before each next
step and at every start, so that whatever a crash leaves of them is put right. The file is there
before the link, and goes after it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import Any

from pilotwave_agent.core.shadow import shadow_of
from pilotwave_agent.core.state import ModelSlot
from pilotwave_agent.effects.tools import Tools, disk_says_no
from pilotwave_agent.host.layout import folder_name, named_by, point
from pilotwave_agent.host.shared_folder import SharedFolder
from pilotwave_protocol import strictjson
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.messages.check_in import Installed
from pilotwave_protocol.shadow import SHADOW, SHADOW_FILE, SHADOW_SCHEMA
from pilotwave_protocol.states import ModelState

_MOST_BYTES = 4096


def show_shadows(tools: Tools) -> None:
    """Make each model's link and file say what the journal says. Where the disk says no, the model
    waits for it, and goes on serving."""
    for slot in tools.journal.state.models.values():
        try:
            with disk_says_no():
                _show(tools, slot)
        except RefusedError as no:
            tools.notes.parked.setdefault(slot.model, no)


def _show(tools: Tools, slot: ModelSlot) -> None:
    found = _told_of(tools, slot)
    named = named_by(tools.disk, tools.layout, slot.model, SHADOW)
    if found is None:
        if named is not None:
            point(tools.disk, tools.layout, slot.model, SHADOW, None)
        _tell(tools, slot.model, None)
        return
    candidate, words = found
    _tell(tools, slot.model, strictjson.dumps(words) + b"\n")
    if named != folder_name(candidate):
        point(tools.disk, tools.layout, slot.model, SHADOW, candidate)


def _told_of(tools: Tools, slot: ModelSlot) -> tuple[Installed, Mapping[str, Any]] | None:
    """Return the candidate and what applications must know of how it is tried; None: there is
    none."""
    order = tools.journal.state.orders.get(slot.model)
    shadow = shadow_of(order)
    if slot.state is not ModelState.SHADOWING or not (slot.candidate and order and shadow):
        return None
    return slot.candidate, {
        "schema": SHADOW_SCHEMA,
        "name": folder_name(slot.candidate),
        "version": slot.candidate.version,
        **shadow.to_plain(),
        "rollout": order.rollout,
    }


def _tell(tools: Tools, model: str, raw: bytes | None) -> None:
    """Have the file say `raw`, or be gone. Without the folder for applications nobody reads it."""
    with (
        contextlib.suppress(FileNotFoundError),
        SharedFolder(tools.layout.live / model) as desk,
    ):
        if raw is None:
            desk.remove(SHADOW_FILE)
        elif _content(desk) != (raw, os.geteuid()):
            desk.replace(SHADOW_FILE, raw)


def _content(desk: SharedFolder) -> tuple[bytes, int] | None:
    """Return the file's bytes and its owner; None for what is no file, as others may have made."""
    try:
        return desk.read(SHADOW_FILE, _MOST_BYTES)
    except OSError:
        return None
