"""Trace contexts (W3C `traceparent`): which trace a version's way to devices belongs to.

A context is not signed: whoever sends one may lie. So it correlates and nothing else; nothing is
decided by it, and what is not exactly one is none. Spans are sent by `spans`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from pilotwave_protocol import names
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.errors import BadName, PilotwaveError

HEADER = "Pilotwave-Trace"
"""Beside a directive, and beside a check-in: `model=traceparent`, with commas between."""
MAX_TRACES = 16
_FORM = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_LONGEST = 64 + 1 + 55  # a model's name and its context


class TracingUnavailable(PilotwaveError):
    """Traces are asked for, and cannot be sent."""

    code = "tracing_unavailable"


@dataclass(frozen=True)
class TraceContext:
    """A span of a trace that is recorded; written as its `traceparent`."""

    trace_id: str
    span_id: str

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-01"

    def child(self, name: str) -> TraceContext:
        """Return the context of a span whose number follows from its name, so that each process
        can name it as a parent, whichever of them records it."""
        return TraceContext(self.trace_id, sha256_hex(f"{self} {name}".encode())[:16])


def parse_traceparent(text: str | None) -> TraceContext | None:
    """Return the context, or None for what is no `traceparent` of version 00, or is not sampled."""
    found = _FORM.fullmatch(text or "")
    if found is None:
        return None
    trace_id, span_id, flags = found.groups()
    if not int(trace_id, 16) or not int(span_id, 16) or not int(flags, 16) & 1:
        return None
    return TraceContext(trace_id, span_id)


def write_traces(traces: Mapping[str, TraceContext]) -> str:
    """Return the header's value for the contexts by model; the first `MAX_TRACES` of them."""
    return ",".join(f"{model}={context}" for model, context in [*traces.items()][:MAX_TRACES])


def parse_traces(text: str) -> dict[str, TraceContext]:
    """Read the contexts by model; what is none is left out, and what is too long is nothing."""
    if len(text) > MAX_TRACES * (_LONGEST + 1):
        return {}
    found = {}
    for part in text.split(","):
        model, _, traceparent = part.partition("=")
        context = parse_traceparent(traceparent)
        try:
            if context is not None:
                found[names.check_model(model)] = context
        except BadName:
            continue
    return found


def check_endpoint(url: str) -> str:
    """Return a collector's base URL without a slash at its end. Raises `TracingUnavailable`."""
    try:
        found = urlsplit(url)
        ok = found.scheme in ("http", "https") and bool(found.hostname) and found.port != 0
    except ValueError:
        ok = False
    if not ok or not url.isascii() or not url.isprintable() or " " in url:
        raise TracingUnavailable(
            f"expected a collector's URL like http://127.0.0.1:4318; got {ascii(url)[:80]}"
        )
    return url.rstrip("/")
