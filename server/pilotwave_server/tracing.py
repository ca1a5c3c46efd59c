"""Traces of versions on their way to devices, where `otlp_endpoint` names a collector.

A request may bring a `traceparent`; a version and a rollout remember the context of the span that
made them. What is decided never depends on either.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from pilotwave_protocol.spans import Spans
from pilotwave_protocol.tracing import TraceContext, TracingUnavailable, parse_traceparent
from pilotwave_server.context import Context, context_of
from pilotwave_server.errors import BadSetting


@dataclass(frozen=True)
class Tracing:
    """Where this process sends spans; None: nowhere."""

    spans: Spans | None = None

    def start(self) -> None:
        """It has no work of its own."""

    def stop(self) -> None:
        """Send what waits."""
        if self.spans is not None:
            self.spans.close()


def install(context: Context) -> None:
    """Put `Tracing` into the context. BadSetting where spans are asked for and cannot be sent."""
    endpoint, spans = context.settings.otlp_endpoint, None
    if endpoint:
        try:
            spans = Spans(endpoint, service="pilotwave-server")
        except TracingUnavailable as e:
            raise BadSetting(f"PILOTWAVE_OTLP_ENDPOINT: {e}") from e
    tracing = Tracing(spans)
    context.put(tracing)
    context.workers.append(tracing)


@dataclass(frozen=True)
class RequestTrace:
    """A request's spans; `brought` is the context that came with it."""

    tracing: Tracing
    brought: TraceContext | None

    def span(
        self, name: str, of: str | None = None, **attributes: str | int
    ) -> AbstractContextManager[TraceContext | None]:
        """Record what is done inside: in the trace `of` what it is about, if that has one, with a
        link to the request's; else in the request's."""
        if self.tracing.spans is None:
            return nullcontext()
        known = parse_traceparent(of)
        return self.tracing.spans.span(
            name,
            known or self.brought,
            link=self.brought if known is not None else None,
            attributes={f"pilotwave.{key}": value for key, value in attributes.items()},
        )


def request_trace(request: Request) -> RequestTrace:
    """Return the request's trace. Only operators' routes ask for it."""
    return RequestTrace(
        context_of(request).get(Tracing), parse_traceparent(request.headers.get("traceparent"))
    )


Traced = Annotated[RequestTrace, Depends(request_trace)]
