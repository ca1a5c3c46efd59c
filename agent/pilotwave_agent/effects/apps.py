"""What is told to a model's applications, and by whom."""

from __future__ import annotations

from collections.abc import Callable

from pilotwave_agent.core.state import ModelSlot
from pilotwave_agent.effects.tools import Tools, disk_says_no
from pilotwave_agent.tell.base import Release, Teller
from pilotwave_agent.tell.choose import tellers_of
from pilotwave_agent.tell.itself import Itself
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.messages.check_in import Installed
from pilotwave_protocol.names import AGENT_MODEL
from pilotwave_protocol.states import ModelState


def tellers(tools: Tools, model: str) -> list[Teller]:
    """Return who tells this model's applications, in the order of the settings."""
    config = tools.config
    if model == AGENT_MODEL:
        within_s = config.self_update_timeout_s
        proved, trouble = tools.notes.proved, tools.notes.trouble
        uptime = lambda: tools.now().uptime  # noqa: E731
        return [Itself(tools.disk, tools.layout, within_s, proved, trouble, uptime)]
    return tellers_of(config.tell, model, tools.disk, tools.layout.live, config.app_users)


def release(tools: Tools, slot: ModelSlot, version: Installed, state: ModelState) -> Release:
    """Describe a version to its applications."""
    others = (slot.current, slot.previous, slot.last_healthy)
    return Release(
        slot.model,
        version.version,
        version.variant,
        slot.number_of(version),
        tools.layout.version(slot.model, version),
        tools.build(version).variant.entrypoint,
        str(state),
        tuple(slot.number_of(v) for v in others if v),
    )


def tell_all(tools: Tools, slot: ModelSlot, words: Callable[[Teller], None]) -> str:
    """Tell the applications of what is decided; what they mind, they say in a note."""
    notes = []
    for teller in reversed(tellers(tools, slot.model)):
        try:
            with disk_says_no():
                words(teller)
        except RefusedError as no:
            notes.append(f" (told so, {no.sentence})")
    return "".join(notes)
