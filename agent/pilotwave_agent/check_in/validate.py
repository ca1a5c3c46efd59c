"""Read a report as the server will, and leave out what it would refuse.

A report is refused whole, so one event with a date that no reader takes, written by a clock that
was wrong years ago, would keep a device from its server for ever. The rules are the protocol's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from pilotwave_protocol.errors import ProtocolError
from pilotwave_protocol.messages.check_in import CheckIn, parse_check_in
from pilotwave_protocol.messages.facts import MAX_FACTS

_PARTS = ("models", "events", "metrics")
# of more facts than a report holds, these decide what fits the device and are kept
_FIRST = ("arch", "memory_mb", "runtime.", "accelerator.", "allow_unsafe_formats")


def sound(report: CheckIn) -> CheckIn:
    """Return the report without the parts that cannot be read."""
    if _is_read(report):
        return report
    empty = replace(report, models=(), events=(), metrics=(), facts=None, refusal=None)
    parts: dict[str, Any] = {part: tuple(_readable(report, empty, part)) for part in _PARTS}
    if report.facts is not None:
        kept = {k: v for k, v in report.facts.items() if _is_read(replace(empty, facts={k: v}))}
        first = sorted(kept, key=lambda key: (not key.startswith(_FIRST), key))
        parts["facts"] = {key: kept[key] for key in first[:MAX_FACTS]}
    refusal = replace(empty, refusal=report.refusal)
    return replace(refusal if _is_read(refusal) else empty, **parts)


def _readable(report: CheckIn, empty: CheckIn, part: str) -> Iterator[object]:
    for item in getattr(report, part):
        alone: dict[str, Any] = {part: (item,)}
        if _is_read(replace(empty, **alone)):
            yield item


def _is_read(report: CheckIn) -> bool:
    try:
        parse_check_in(report.to_bytes())
    except (ProtocolError, ValueError):  # a lone surrogate cannot even be written
        return False
    return True
