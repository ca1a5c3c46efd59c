"""Make a version current and have the application take it."""

from __future__ import annotations

from pilotwave_agent import health
from pilotwave_agent.core import outcomes
from pilotwave_agent.core.records import Record
from pilotwave_agent.core.state import ModelSlot
from pilotwave_agent.core.steps import Confirm, Switch
from pilotwave_agent.effects.apps import release, tellers
from pilotwave_agent.effects.tools import TRANSIENT, Tools, disk_says_no
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.messages.check_in import Installed
from pilotwave_protocol.names import AGENT_MODEL
from pilotwave_protocol.states import ModelState, Reason


def switch(tools: Tools, step: Switch) -> Record:
    """Make the candidate current and tell the application."""
    slot = tools.slot(step.model)
    version, _ = tools.candidate(slot)
    if not tools.is_intact(slot, version, deep=False):
        tools.relink(slot)
        return outcomes.lost(slot, tools.now())
    after = _previous_in(outcomes.switched(slot, tools.now()))
    told = tellers(tools, slot.model)
    if not told:
        with disk_says_no():
            tools.point(slot.model, version, after)
        return _switched(tools, slot, version)
    within_s = max(teller.within_s for teller in told)
    try:
        slot = _begin_to_tell(tools, slot, within_s)
        words = release(tools, slot, version, ModelState.PROBATION)
        with disk_says_no():
            for teller in told:
                teller.stage(words)
            tools.point(slot.model, version, after)
            for teller in told:
                teller.activate(words)
    except RefusedError as no:
        if no.reason in TRANSIENT:
            raise
        return outcomes.not_taken(slot, no, tools.now())
    return outcomes.told(slot, tools.now(), within_s)


def _begin_to_tell(tools: Tools, slot: ModelSlot, within_s: float) -> ModelSlot:
    """Journal that this boot's try begins, so that a version that takes the machine down while it
    is loaded is counted, and taken back."""
    now, telling = tools.now(), slot.telling
    if telling is None or telling.boot != now.boot:
        if telling and telling.boots >= tools.rules.boots:
            words = f"the device restarted {telling.boots} times while it was to be taken"
            raise RefusedError(Reason.APP_REFUSED, words)
        tools.record(outcomes.telling(slot, now, within_s))
    return tools.slot(slot.model)


def _switched(tools: Tools, slot: ModelSlot, version: Installed) -> Record:
    subject = tools.subject(slot, version, ModelState.PROBATION)
    restarts = health.restarts(tools.config.probe, subject)
    return outcomes.switched(slot, tools.now(), restarts)


def confirm(tools: Tools, step: Confirm) -> Record | None:
    """Ask whether the application has taken the candidate."""
    slot = tools.slot(step.model)
    version, _ = tools.candidate(slot)
    now, telling = tools.now(), slot.telling
    tools.notes.asked[slot.model] = now.uptime
    words = release(tools, slot, version, ModelState.PROBATION)
    since = telling.begun if telling else now.uptime
    try:
        if all(teller.confirm(words, since) for teller in tellers(tools, slot.model)):
            return _switched(tools, slot, version)
        if step.last:
            within_s = telling.within_s if telling else 0.0
            said = f"no application said within {within_s:g} s that it took {version.version}"
            raise RefusedError(Reason.APP_SILENT, said)
    except RefusedError as no:
        return outcomes.not_taken(slot, no, tools.now())
    if slot.model == AGENT_MODEL and telling:
        # this process learns nothing more of it; one that will is started when there is news
        tools.notes.asked[slot.model] = max(now.uptime, telling.since + telling.within_s)
    return None


def _previous_in(record: Record) -> Installed | None:
    found = record["set"]["previous"]
    return Installed(**found) if found else None
