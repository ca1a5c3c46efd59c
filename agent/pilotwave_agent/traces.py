"""The spans of this device's work, where the owner's settings name a collector.

A process that works says what it did and when (`effects.spans`); the one that talks to the server
sends the spans. What the server says of traces names parents and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pilotwave_agent.host.disk import Disk
from pilotwave_agent.host.layout import Layout
from pilotwave_agent.host.log import say
from pilotwave_agent.settings.config import Config
from pilotwave_protocol.spans import Spans
from pilotwave_protocol.tracing import (
    TraceContext,
    TracingUnavailable,
    parse_traceparent,
    parse_traces,
    write_traces,
)


class DeviceTraces:
    """The traces of one device's orders, and its spans in them."""

    def __init__(self, spans: Spans, disk: Disk, layout: Layout) -> None:
        self._spans, self._disk, self._path = spans, disk, layout.traces
        self._orders = self._kept()
        self._unreported: dict[str, TraceContext] = {}

    @property
    def models(self) -> list[str]:
        """The models whose work is to be told."""
        return sorted(self._orders)

    def ordered(self, header: str) -> None:
        """Take in what came with another directive."""
        self._orders = parse_traces(header)
        words = {model: str(context) for model, context in self._orders.items()}
        try:
            self._disk.make_dirs(self._path.parent)
            self._disk.write_atomic(self._path, json.dumps(words).encode())
        except OSError:
            return  # a restart loses them, and nothing else

    def heard(self, told: Mapping[str, Any]) -> None:
        """Send the span that a process that works told of."""
        model = told["model"]
        parent = self._orders.get(model)
        if parent is None:
            return
        self._unreported[model] = self._spans.record(
            told["name"],
            parent,
            start=told["start"],
            end=told["end"],
            attributes={f"pilotwave.{key}": value for key, value in told["about"].items()},
            error=told["error"],
        )

    def header(self) -> str:
        """Return what the next check-in says: the last span of each model, if there is news."""
        return write_traces(self._unreported)

    def reported(self) -> None:
        """The server has the check-in."""
        self._unreported.clear()

    def close(self) -> None:
        """Send what waits."""
        self._spans.close()

    def _kept(self) -> dict[str, TraceContext]:
        try:
            found = json.loads(self._disk.read(self._path))
            contexts = {model: parse_traceparent(text) for model, text in found.items()}
        except (OSError, ValueError, AttributeError, TypeError):
            return {}
        return {model: context for model, context in contexts.items() if context is not None}


def traces_of(config: Config, disk: Disk) -> DeviceTraces | None:
    """Return the device's traces; None where they cannot be sent."""
    try:
        spans = Spans(config.tracing.endpoint, service="pilotwave-agent", instance=config.device)
    except TracingUnavailable as e:
        say(f"no traces are sent: {e}", level="warning")
        return None
    return DeviceTraces(spans, disk, Layout(config.data_dir))
