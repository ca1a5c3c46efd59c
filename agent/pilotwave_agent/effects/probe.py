"""Try a version after the switch, by its probe."""

from __future__ import annotations

from pilotwave_agent import health
from pilotwave_agent.core import outcomes
from pilotwave_agent.core.records import Record
from pilotwave_agent.core.steps import Probe
from pilotwave_agent.effects.tools import Tools
from pilotwave_agent.effects.trial import selftest
from pilotwave_protocol.states import ModelState


def probe(tools: Tools, step: Probe) -> Record | None:
    """Ask whether the current version is well."""
    slot = tools.slot(step.model)
    current, watch = slot.current, slot.watch
    if current is None:
        return None
    no = health.ask(
        tools.config.probe,
        tools.subject(slot, current, ModelState.PROBATION),
        lambda: selftest(tools, slot.model, current),
        live=tools.layout.live,
        users=tools.config.app_users.get(slot.model),
        since=health.Since(watch.started, watch.restarts) if watch else None,
    )
    now, order = tools.now(), tools.journal.state.orders.get(slot.model)
    tools.notes.probed[slot.model] = now.uptime
    return outcomes.probed(slot, no, now, tools.rules, last=step.last, order=order)
