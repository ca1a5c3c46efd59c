"""`[facts]` of the settings file: what the owner says of the device, and a program that says it.

Such facts are named `app` or `app.…`, and nothing that the agent finds is: neither can stand in for
the other. What the agent finds may be hidden, never changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pilotwave_protocol.errors import BadMessage, ProtocolError
from pilotwave_protocol.fields import Fields, Scalar
from pilotwave_protocol.messages.facts import read_facts

MAX_APP_FACTS = 16
APP = "app"
MAX_HIDDEN = 32
HIDEABLE = ("cpu.", "runtime.", "accelerator.")


@dataclass(frozen=True)
class FactSettings:
    """Fixed facts, and the program that prints others as a JSON object within `timeout_s`. `hide`
    are facts that the agent finds and does not tell."""

    app: Mapping[str, Scalar] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    timeout_s: float = 5.0
    hide: tuple[str, ...] = ()


def is_app_fact(key: str) -> bool:
    """Say whether the owner may say this fact."""
    return key == APP or key.startswith(f"{APP}.")


def read_app_facts(data: object) -> dict[str, Scalar]:
    """Check facts of the owner or of a program, or raise `BadMessage`."""
    found = read_facts(Fields({"facts": data}, "", BadMessage))
    if len(found) > MAX_APP_FACTS:
        raise BadMessage(f"facts: expected at most {MAX_APP_FACTS}; got {len(found)}")
    for key in found:
        if not is_app_fact(key):
            raise BadMessage(f"facts: expected names such as {APP} or {APP}.camera; got {key!a}")
    return found


def read_fact_settings(found: Mapping[str, object], error: type[ProtocolError]) -> FactSettings:
    """Read the section, or raise `error`."""
    f = Fields({k: v for k, v in found.items() if not is_app_fact(k)}, "facts", error)
    command = tuple(f.texts("command", limit=64, length=4096, default=[]))
    timeout_s = f.number("timeout_s", low=0.1, high=60.0, default=5.0)
    hide = tuple(f.texts("hide", limit=MAX_HIDDEN, length=64, default=[]))
    for key in hide:
        if not key.startswith(HIDEABLE):
            expected = f"facts that begin with {', '.join(HIDEABLE)}"
            raise f.fail("hide", expected, key)
    f.done()
    try:
        fixed = read_app_facts({k: v for k, v in found.items() if is_app_fact(k)})
    except BadMessage as e:
        raise error(str(e)) from e
    return FactSettings(fixed, command, timeout_s, hide)
