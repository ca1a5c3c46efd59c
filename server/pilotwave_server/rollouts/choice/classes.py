"""The class of a device: what decides how fast a model runs there. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from pilotwave_protocol import strictjson
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.fields import Scalar
from pilotwave_protocol.messages.facts import AGENT_HIDES

_KEYS = ("arch", AGENT_HIDES)
_PREFIXES = ("cpu.", "accelerator.", "runtime.")


def class_of(facts: Mapping[str, Scalar]) -> str:
    """Return the class's name: devices of one architecture, processor, accelerators and runtimes
    (with their versions) have the same, where they hide the same. One fact that changes makes it
    another class."""
    matter = {k: str(v) for k, v in facts.items() if k in _KEYS or k.startswith(_PREFIXES)}
    return sha256_hex(strictjson.dumps(matter))[:16]
