"""Go back to an earlier version, and tell the application."""

from __future__ import annotations

from pilotwave_agent import health
from pilotwave_agent.core import outcomes
from pilotwave_agent.core.records import Record
from pilotwave_agent.core.state import ModelSlot
from pilotwave_agent.core.steps import Restore
from pilotwave_agent.effects.apps import release, tell_all
from pilotwave_agent.effects.tools import Tools, disk_says_no
from pilotwave_agent.host.layout import point
from pilotwave_agent.tell.base import Teller
from pilotwave_protocol.messages.check_in import Installed
from pilotwave_protocol.names import AGENT_MODEL
from pilotwave_protocol.states import ModelState

_BACK = ModelState.ROLLED_BACK


def restore(tools: Tools, step: Restore) -> Record:
    """Make the first intact version of the step's ways current."""
    slot = tools.slot(step.model)
    for way in step.ways:
        if not tools.is_intact(slot, way, deep=True):
            continue
        with disk_says_no():
            tools.point(slot.model, way, outcomes.behind(slot, way))
        note = _tell_back(tools, slot, way)
        restarts = health.restarts(tools.config.probe, tools.subject(slot, way, _BACK))
        return outcomes.restored(slot, way, note, tools.now(), restarts)
    if slot.model == AGENT_MODEL:  # behind its versions is the agent that was installed by hand
        with disk_says_no():
            for link in ("previous", "current"):
                point(tools.disk, tools.layout, slot.model, link, None)
        return outcomes.off(slot, tools.now())
    tools.relink(slot)
    return outcomes.nowhere_to_go(slot, tools.now())


def _tell_back(tools: Tools, slot: ModelSlot, way: Installed) -> str:
    """Tell the application that an earlier version is current again: the links are right already,
    and nothing else is left to do."""
    good = release(tools, slot, way, _BACK)

    def say(teller: Teller) -> None:
        bad = release(tools, slot, slot.current, _BACK) if slot.current else None
        teller.rollback(bad, good)

    return tell_all(tools, slot, say)
