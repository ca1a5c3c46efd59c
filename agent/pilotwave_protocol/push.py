"""What is said on a push channel: "poll", within so many seconds, and who is there to say it.

Nothing here is signed or secret. Whoever forges, repeats or withholds any of it makes a device poll
once more, or leaves it to its polling.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

WEBSOCKET_PATH = "/device/v1/push"
MAX_CALL_BYTES = 64
MAX_WITHIN_S = 600.0
PRESENT = b"1"
_CALL = re.compile(rb"poll (\d{1,6}(?:\.\d{1,3})?)")


@dataclass(frozen=True)
class PushTerms:
    """How the server wants a push channel used, in seconds: how seldom a device polls while its
    channel lives, how often it pings, and within what time it comes back when all were cut off."""

    poll_interval_s: int
    ping_s: int
    spread_s: int


def call_to_poll(within_s: float) -> bytes:
    """Write a call: poll at some moment within that many seconds."""
    return b"poll %.2f" % min(max(within_s, 0.0), MAX_WITHIN_S)


def within_of(call: bytes) -> float | None:
    """Return the seconds of a call, never more than `MAX_WITHIN_S`; None if it is no call."""
    found = _CALL.fullmatch(call) if len(call) <= MAX_CALL_BYTES else None
    return min(float(found[1]), MAX_WITHIN_S) if found else None


def poll_topic(fleet: str, device: str) -> str:
    """The MQTT topic on which the server calls one device."""
    return f"pilotwave/{fleet}/devices/{device}/poll"


def presence_topic(fleet: str, device: str) -> str:
    """Where a device says, retained, that it listens. `+` for the device: all of them."""
    return f"pilotwave/{fleet}/devices/{device}/presence"


def server_topic(fleet: str, process: str) -> str:
    """Where a server process says, retained, that it is there. `+` for the process: all of them."""
    return f"pilotwave/{fleet}/servers/{process}"
