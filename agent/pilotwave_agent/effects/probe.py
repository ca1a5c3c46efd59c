"""Try a version after the switch, by its probe."""

from __future__ import annotations

from dataclasses import replace

from pilotwave_agent import health
from pilotwave_agent.core import outcomes
from pilotwave_agent.core.records import Record
from pilotwave_agent.core.steps import Probe
from pilotwave_agent.effects.tools import Tools
from pilotwave_agent.effects.trial import selftest
from pilotwave_agent.self_update import slots
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.names import AGENT_MODEL
from pilotwave_protocol.states import ModelState, Reason


def probe(tools: Tools, step: Probe) -> Record | None:
    """Ask whether the current version is well."""
    slot = tools.slot(step.model)
    current, watch = slot.current, slot.watch
    if current is None:
        return None
    now, order = tools.now(), tools.journal.state.orders.get(slot.model)
    tools.notes.probed[slot.model] = now.uptime
    if slot.model == AGENT_MODEL:
        why = slots.verdict(tools.config.data_dir, tools.layout.version(slot.model, current).name)
        gone = RefusedError(Reason.PROBE_FAILED, why) if why else None
        at_once = replace(tools.rules, failures=1)
        return outcomes.probed(slot, gone, now, at_once, last=step.last, order=order)
    no = health.ask(
        tools.config.probe,
        tools.subject(slot, current, ModelState.PROBATION),
        lambda: str(selftest(tools, slot.model, current)),
        live=tools.layout.live,
        users=tools.config.app_users.get(slot.model),
        since=health.Since(watch.started, watch.restarts) if watch else None,
    )
    now = tools.now()
    tools.notes.probed[slot.model] = now.uptime
    return outcomes.probed(slot, no, now, tools.rules, last=step.last, order=order)
