"""The chain of the audit log: each event's digest covers the event and the digest before it.

Whoever noted a digest once can tell later whether anything before it was changed, left out or put
in (as in Haber and Stornetta, "How to time-stamp a digital document", 1991). Server and CLI compute
it with the very same code, so that the CLI need not believe the server.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pilotwave_protocol import strictjson
from pilotwave_protocol.digest import sha256_hex

START = "0" * 64
FIELDS = ("at", "actor", "verb", "object", "before", "after")


def chained(previous: str, event: Mapping[str, Any]) -> str:
    """Return the digest (64 hex digits) of an event that follows `previous`.

    `event` has the members of `FIELDS`; `at` is RFC 3339 in UTC with microseconds.
    """
    content = {field: _plain(event[field]) for field in FIELDS}
    return sha256_hex(strictjson.dumps({"previous": previous, **content}))


def _plain(value: Any) -> Any:
    """Databases write 2.0 as 2, so the digest must not tell them apart."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(member) for member in value]
    return value


@dataclass(frozen=True)
class Checked:
    """How far a chain was right. `fault` says what is wrong with event `broken_at`."""

    events: int
    head: str
    broken_at: int | None = None
    fault: str | None = None
    seen: bool = False


def check(events: Iterable[Mapping[str, Any]], *, expected: str | None = None) -> Checked:
    """Follow a chain from its start; events carry `id` and `sha256` beside `FIELDS`.

    It ends at the first fault. `seen` says whether the digest `expected` was met on the way.
    """
    count, head, seen, before = 0, START, expected == START, 0
    for event in events:
        if event["id"] <= before:
            return Checked(count, head, event["id"], "it stands in the wrong place", seen)
        before = event["id"]
        if chained(head, event) != event["sha256"]:
            fault = "it was changed, or one before it was taken out or put in"
            return Checked(count, head, before, fault, seen)
        count, head = count + 1, event["sha256"]
        seen = seen or head == expected
    return Checked(count, head, seen=seen)
