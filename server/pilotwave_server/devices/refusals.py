"""What a person must do about a device that refuses its orders.

A device says why: a word and a sentence. Neither is proved, so all that is taken out of the
sentence is a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta

from pilotwave_protocol.fields import format_time, parse_time
from pilotwave_protocol.states import Reason

_TIME = re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_AHEAD = timedelta(hours=1)
_BEHIND_IT = (
    "this server is behind what the device has seen, as after a restore from a backup: "
    "`pilotwave status` says how far and what to do"
)
_ELSEWHERE = "it was enrolled with another fleet, name or root of trust: enrol it anew"
_NETWORK = "look at what lies between it and the server: a proxy, a portal, a slow link"
_EXPIRED = (
    "renew what expired (`pilotwave status` names it); if nothing did, set this device's clock"
)
_ACTIONS: dict[str, str] = {
    Reason.DIRECTIVE_TOO_LARGE: "have it run fewer models",
    Reason.WRONG_KEY: _ELSEWHERE,
    Reason.WRONG_FLEET: _ELSEWHERE,
    Reason.WRONG_DEVICE: _ELSEWHERE,
    Reason.DIRECTIVE_REPLAYED: _BEHIND_IT,
    Reason.DIRECTIVE_FORK: _BEHIND_IT,
    Reason.METADATA_ROLLBACK: _BEHIND_IT,
    Reason.METADATA_EXPIRED: _EXPIRED,
    Reason.METADATA_UNAVAILABLE: _NETWORK,
    Reason.SLOW_RETRIEVAL: _NETWORK,
    Reason.ENDLESS_DATA: _NETWORK,
    Reason.DISK_FULL: "free room on its disk",
    Reason.DISK_READONLY: "let its agent write to its data folder",
}
_OTHERWISE = "look at `pilotwave devices events {device}`, and at its agent's log there"


def action(device: str, reason: str, detail: str, *, heard: datetime | None) -> str:
    """Return what to do, as an order. `heard`: when it said so, by the server's clock."""
    times = list(_times(detail))
    if reason == Reason.NOT_YET_VALID:
        return _set_clock(min(times, default=None))
    if reason == Reason.DIRECTIVE_EXPIRED:
        here = max(times, default=None)
        ahead = here is not None and heard is not None and here > heard + _AHEAD
        return _set_clock(here) if ahead else _NETWORK
    return _ACTIONS.get(reason, _OTHERWISE.format(device=device))


def _times(detail: str) -> Iterator[datetime]:
    """Yield the times in a sentence."""
    for text in _TIME.findall(detail):
        with suppress(ValueError):
            yield parse_time(text)


def _set_clock(here: datetime | None) -> str:
    if here is None:
        return "set this device's clock"
    return f"this device's clock says {format_time(here)}; set it"
