"""Traces that begin at the command line.

Each request carries the context of TRACEPARENT (as a CI system sets it) or, where
PILOTWAVE_OTLP_ENDPOINT names a collector, of the command's own span.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from pilotwave_cli.output import warn
from pilotwave_protocol.tracing import TraceContext, TracingUnavailable, parse_traceparent

_current: ContextVar[TraceContext | None] = ContextVar("current", default=None)


def headers() -> dict[str, str]:
    """Return what each request says of its trace."""
    context = _current.get() or _given()
    return {} if context is None else {"traceparent": str(context)}


@contextmanager
def traced(name: str, **attributes: str) -> Iterator[None]:
    """Send a span of what is done inside, if a collector is named; else do it all the same."""
    endpoint = os.environ.get("PILOTWAVE_OTLP_ENDPOINT", "")
    if not endpoint:
        yield
        return
    from pilotwave_protocol.spans import Spans

    try:
        spans = Spans(endpoint, service="pilotwave")
    except TracingUnavailable as e:
        warn(f"no trace is sent: {e}")
        yield
        return
    told = {f"pilotwave.{key}": value for key, value in attributes.items()}
    try:
        with spans.span(name, _given(), attributes=told) as context:
            before = _current.set(context)
            try:
                yield
            finally:
                _current.reset(before)
    finally:
        spans.close()


def _given() -> TraceContext | None:
    return parse_traceparent(os.environ.get("TRACEPARENT"))
