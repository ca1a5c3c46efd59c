"""Send spans to an OpenTelemetry collector: OTLP over HTTP, in the background.

The queue is bounded: where the collector is slow or gone, spans are lost and nothing waits. The
SDK is imported when the first `Spans` is made, so who traces nothing pays nothing. Its own
variables hold here too (`OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_RESOURCE_ATTRIBUTES`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from pilotwave_protocol.tracing import TraceContext, TracingUnavailable, check_endpoint

if TYPE_CHECKING:
    from opentelemetry import trace

EXTRA = "opentelemetry-sdk is missing; pip install 'pilotwave[tracing]'"
QUEUE = 2048
TIMEOUT_S = 5.0
CLOSE_S = 2.0
"""For how long `close` waits for what is still to be sent."""
SAID_EVERY_S = 600.0
_LOUD = (
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.sdk._shared_internal",
)
_wanted: ContextVar[TraceContext | None] = ContextVar("wanted", default=None)


class _Seldom(logging.Filter):
    """Lets a line through now and then: each try at a collector that is gone logs one."""

    _again = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now < self._again:
            return False
        self._again = now + SAID_EVERY_S
        return True


class Spans:
    """Spans of one process, as `service`. May be used by several threads."""

    def __init__(self, endpoint: str, *, service: str, instance: str = "") -> None:
        """`endpoint` is the collector's base URL. Raises `TracingUnavailable`."""
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
            from opentelemetry.sdk.trace.sampling import ALWAYS_ON
        except ImportError:
            raise TracingUnavailable(EXTRA) from None

        class Ids(RandomIdGenerator):
            def generate_span_id(self) -> int:
                wanted = _wanted.get()
                return int(wanted.span_id, 16) if wanted else super().generate_span_id()

        for name in _LOUD:
            logging.getLogger(name).addFilter(_Seldom())
        url = f"{check_endpoint(endpoint)}/v1/traces"
        named = {"service.name": service, **({"service.instance.id": instance} if instance else {})}
        self._provider = TracerProvider(
            # no other context than a sampled one is read
            sampler=ALWAYS_ON,
            resource=Resource.create(named),
            id_generator=Ids(),
            shutdown_on_exit=False,
        )
        exporter = OTLPSpanExporter(endpoint=url, timeout=TIMEOUT_S)
        self._provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=QUEUE))
        self._tracer = self._provider.get_tracer("pilotwave")

    def record(
        self,
        name: str,
        parent: TraceContext | None,
        *,
        start: float,
        end: float,
        attributes: Mapping[str, str | int],
        error: str = "",
        itself: TraceContext | None = None,
    ) -> TraceContext:
        """Send a span that is over, from `start` to `end` (epoch seconds), and return its context.
        `itself` is the context that it was named by before (`TraceContext.child`)."""
        span = self._started(name, parent, start, attributes, itself=itself)
        return self._ended(span, error, end)

    @contextmanager
    def span(
        self,
        name: str,
        parent: TraceContext | None,
        *,
        link: TraceContext | None = None,
        attributes: Mapping[str, str | int],
    ) -> Iterator[TraceContext]:
        """Send a span of what is done inside; an exception is its error."""
        span = self._started(name, parent, time.time(), attributes, link=link)
        error = ""
        try:
            yield _context_of(span)
        except BaseException as e:
            error = type(e).__name__
            raise
        finally:
            self._ended(span, error, time.time())

    def close(self) -> None:
        """Send what waits, within `CLOSE_S`, and end."""
        # the SDK's own shutdown takes as long as a collector that does not answer
        ending = threading.Thread(target=self._provider.shutdown, daemon=True)
        ending.start()
        ending.join(CLOSE_S)

    def _started(
        self,
        name: str,
        parent: TraceContext | None,
        start: float,
        attributes: Mapping[str, str | int],
        *,
        link: TraceContext | None = None,
        itself: TraceContext | None = None,
    ) -> trace.Span:
        from opentelemetry import context, trace

        around = context.Context()
        if parent is not None:
            around = trace.set_span_in_context(trace.NonRecordingSpan(_remote(parent)), around)
        reset = _wanted.set(itself)
        try:
            return self._tracer.start_span(
                name,
                context=around,
                start_time=int(start * 1e9),
                attributes=dict(attributes),
                links=[trace.Link(_remote(link))] if link else [],
            )
        finally:
            _wanted.reset(reset)

    def _ended(self, span: trace.Span, error: str, end: float) -> TraceContext:
        from opentelemetry.trace import Status, StatusCode

        if error:
            span.set_status(Status(StatusCode.ERROR, error))
        span.end(int(end * 1e9))
        return _context_of(span)


def _remote(context: TraceContext) -> trace.SpanContext:
    from opentelemetry.trace import SpanContext, TraceFlags

    ids = int(context.trace_id, 16), int(context.span_id, 16)
    return SpanContext(*ids, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))


def _context_of(span: trace.Span) -> TraceContext:
    found = span.get_span_context()
    return TraceContext(f"{found.trace_id:032x}", f"{found.span_id:016x}")
