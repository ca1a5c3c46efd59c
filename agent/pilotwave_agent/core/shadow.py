"""Which candidates are tried beside the version that serves, and never switched to. Pure.

An order says so by `shadow` among its conditions. Its candidate is fetched, staged and tested like
any other, and then kept in shadow (`SHADOWING`) until another order comes: one for the same version
without `shadow` switches to it, any other forgets it. Of what cannot be read nothing is switched.
"""

from __future__ import annotations

from pilotwave_agent.core.state import DeviceState, ModelSlot, Order
from pilotwave_agent.core.ties import mates
from pilotwave_protocol.errors import BadMessage
from pilotwave_protocol.names import AGENT_MODEL
from pilotwave_protocol.shadow import SHADOW, Shadow, read_shadow


def is_shadow(order: Order | None) -> bool:
    """Say whether an order only tries its version beside the one that serves."""
    return order is not None and SHADOW in order.conditions


def is_readable(value: object) -> bool:
    """Say whether the condition makes sense."""
    try:
        read_shadow(value)
    except BadMessage:
        return False
    return True


def shadow_of(order: Order | None) -> Shadow | None:
    """Return how an order has its version tried; None where it does not, or cannot be read."""
    found = order.conditions.get(SHADOW) if order else None
    return read_shadow(found) if is_readable(found) else None


def kept_out(state: DeviceState, slot: ModelSlot) -> str | None:
    """Say what keeps a model from being tried in shadow, as ordered; None where nothing does."""
    order = state.orders.get(slot.model)
    if order is None or not is_shadow(order):
        return None
    named = f"{order.version} was ordered to be tried in shadow"
    if slot.model == AGENT_MODEL:
        return f"{named}, and no agent is"
    if slot.current is None:
        return f"{named}, and no version of {slot.model} runs here yet that it could run beside"
    others = mates(state, slot.model)
    if others:
        return (
            f"{named}, and it changes together with {', '.join(others)}, which cannot be tried so"
        )
    return None
