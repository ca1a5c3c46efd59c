"""What a device says of itself: flat facts, and those that this project gives a meaning."""

from __future__ import annotations

from pilotwave_protocol import names
from pilotwave_protocol.errors import BadMessage, ProtocolError
from pilotwave_protocol.fields import MAX_INT, Fields, Scalar

MAX_FACTS = 64
AGENT_PROFILE = "agent.profile"
"""The fact that says how an agent spends wake-ups: `battery`, or missing."""
AGENT_LONGEST = "agent.max_check_in_interval_s"
"""The fact of an agent whose settings cap the interval between check-ins, in whole seconds."""
BATTERY_INTERVAL_S = 900
"""An agent on a battery polls and reports no more often than this, in seconds."""
AGENT_TIES = "agent.together"
"""The fact of an agent that heeds the condition `together`; one without it changes all at once."""
AGENT_MANIFEST = "agent.manifest"
"""The fact that says which schema of manifests an agent reads, and those before; missing: 1."""

AGENT_COMPARES = "agent.compares"
"""The fact of an agent that measures the variants that an entry's condition `compare` names."""

AGENT_SHADOWS = "shadows"
"""The fact of an agent that heeds the condition `shadow`; no other is sent one."""

AGENT_HIDES = "agent.hides"
"""The fact that names those which the settings hide: such a device stands for no other."""

AGENT_OVERLAYS = "overlays"
"""The fact that names the models whose answers a device adapts to itself."""

AGENT_UPDATES = "agent.updates"
"""The fact of an agent that can replace itself by a version of the reserved model."""


def read_facts(f: Fields) -> dict[str, Scalar]:
    """Read the `facts` field: flat, keys by pattern, values scalar and short."""
    found = f.mapping("facts", limit=MAX_FACTS)
    for key, value in found.items():
        try:
            names.check_fact_key(key)
        except ProtocolError as e:
            raise BadMessage(f"{f.at('facts')}: {e}") from e
        if not _is_fact(value):
            raise f.fail(
                f"facts.{key}", "printable text up to 256 characters, a number or true/false", value
            )
    return found


def _is_fact(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= 256 and (value.isprintable() or value == "")
    return isinstance(value, bool) or (
        isinstance(value, (int, float)) and -MAX_INT <= value <= MAX_INT
    )
