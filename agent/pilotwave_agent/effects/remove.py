"""Take a model off the device: the application first, then the journal, then links and files.

The journal says that the model is gone before anything of it is, so that no later order meets half
of it: a power cut afterwards leaves files that the next start removes.
"""

from __future__ import annotations

from dataclasses import replace

from pilotwave_agent.core import records
from pilotwave_agent.core.records import Record
from pilotwave_agent.core.steps import ClearAway, Remove
from pilotwave_agent.effects.apps import release, tell_all
from pilotwave_agent.effects.tools import Tools, disk_says_no
from pilotwave_agent.tell.base import Teller
from pilotwave_protocol.shadow import SHADOW
from pilotwave_protocol.states import ModelState


def remove(tools: Tools, step: Remove) -> Record:
    """Tell the application that a model goes; whatever it minds, the order holds."""
    slot, note = tools.slot(step.model), ""
    current = slot.current
    if current is not None:

        def say(teller: Teller) -> None:
            words = release(tools, slot, current, ModelState.IDLE)
            teller.remove(replace(words, state="removed"))

        note = tell_all(tools, slot, say)
    detail = f"an operator ordered it{note}"
    return records.removed(slot, at=tools.now().wall, detail=detail)


def clear_away(tools: Tools, step: ClearAway) -> Record:
    """Remove the links and files of a model that was taken off."""
    disk, folder = tools.disk, tools.layout.models / step.model
    with disk_says_no():
        for link in (SHADOW, "overlay", "current", "previous"):
            if disk.read_link(folder / link) is not None:
                disk.unlink(folder / link)
        if folder.is_dir():
            disk.sync_dir(folder)
            disk.remove_tree(folder)
            disk.sync_dir(folder.parent)
    return records.cleared(step.model, at=tools.now().wall)
