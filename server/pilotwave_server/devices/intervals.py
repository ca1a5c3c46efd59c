"""Say how often a device checks in: as it is told, within what its agent's own settings allow.

The agent comes to the same by itself (`pilotwave_agent.core.schedule`): a cap of its own shortens
the interval (`max_check_in_interval_s`), and on a battery it reports no more often than every
15 minutes. Both are facts of the device.
"""

from __future__ import annotations

from collections.abc import Mapping

from pilotwave_protocol.messages.facts import AGENT_LONGEST, AGENT_PROFILE, BATTERY_INTERVAL_S

BATTERY = "battery"


def every_s(told_s: int, facts: Mapping[str, object]) -> int:
    """How often a device with these facts checks in when it is told `told_s`, in seconds.

    A cap is rounded up to two digits: the look for silent devices takes one step for each interval
    that there is, so that devices must not bring about any number of them.
    """
    interval_s = min(told_s, _cap_s(facts.get(AGENT_LONGEST)) or told_s)
    return on_battery_s(interval_s) if facts.get(AGENT_PROFILE) == BATTERY else interval_s


def on_battery_s(interval_s: int) -> int:
    """How often an agent on a battery checks in that is told this."""
    return max(interval_s, BATTERY_INTERVAL_S)


def _cap_s(said: object) -> int | None:
    """The cap that a fact says; None where it says none. A database may give a number as text."""
    digits = str(said).partition(".")[0]
    if not (digits.isascii() and digits.isdecimal() and len(digits) < 16):
        return None
    step = 10 ** max(len(digits.lstrip("0")) - 2, 0)
    return -(-int(digits) // step) * step or None
