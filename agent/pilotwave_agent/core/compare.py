"""Which variants of a version this device is asked to measure, beside the one that it runs. Pure.

A comparison changes nothing about a model: what is measured is fetched, tried and cleared away, and
only what was found is journalled, in one record. After a crash it is begun again, a few times.
"""

from __future__ import annotations

from dataclasses import dataclass

from pilotwave_agent.core.state import DeviceState, ModelSlot, Order
from pilotwave_protocol.errors import ProtocolError
from pilotwave_protocol.figures import COMPARE, MOST_COMPARED
from pilotwave_protocol.messages.check_in import Installed
from pilotwave_protocol.names import AGENT_MODEL, check_variant

MOST_TRIES = 3
"""A model that takes the device down when it is measured is given up after so many tries."""
LATER_S = 600.0


@dataclass(frozen=True)
class Wish:
    """Variants of one version to be compared; `of` is the class that the server named."""

    of: str
    versions: tuple[Installed, ...]


def wish_of(order: Order) -> Wish | None:
    """Read what an order asks to compare; None where it asks nothing that can be read."""
    told = order.conditions.get(COMPARE)
    if not isinstance(told, dict):
        return None
    of, variants = told.get("of"), told.get("variants")
    if not isinstance(of, str) or not isinstance(variants, list):
        return None
    try:
        named = dict.fromkeys(check_variant(name) for name in variants[:MOST_COMPARED])
    except ProtocolError:
        return None
    return Wish(
        of[:64], tuple(Installed(order.version, order.sha256, n, order.counter) for n in named)
    )


def pending(state: DeviceState, slot: ModelSlot) -> Wish | None:
    """Return what is still to be compared for a model."""
    order = state.orders.get(slot.model)
    wish = wish_of(order) if order else None
    if order is None or wish is None or not wish.versions or slot.model == AGENT_MODEL:
        return None
    known = state.measured.get(slot.model)
    if known is not None and known.done and (known.sha256, known.of) == (order.sha256, wish.of):
        return None
    forbidden = state.memory.forbids(slot.model, order.sha256, order.counter)
    return None if forbidden else wish


def tries(state: DeviceState, model: str, wish: Wish) -> int:
    """Return how often this comparison was begun before."""
    known = state.measured.get(model)
    same = known and (known.sha256, known.of) == (wish.versions[0].sha256, wish.of)
    return known.tries if known and same else 0
