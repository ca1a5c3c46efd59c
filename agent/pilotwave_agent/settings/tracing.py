"""`[tracing]` of the settings file: where this device sends spans."""

from __future__ import annotations

from dataclasses import dataclass

from pilotwave_protocol.fields import Fields
from pilotwave_protocol.tracing import TracingUnavailable, check_endpoint


@dataclass(frozen=True)
class TracingSettings:
    """The base URL of an OpenTelemetry collector; empty: nothing is sent."""

    endpoint: str = ""


def read_tracing(f: Fields) -> TracingSettings:
    """Read the section, or raise what `f` raises."""
    endpoint = f.text("endpoint", limit=2048, default="")
    if endpoint:
        try:
            endpoint = check_endpoint(endpoint)
        except TracingUnavailable:
            raise f.fail("endpoint", "a URL like http://127.0.0.1:4318", endpoint) from None
    f.done()
    return TracingSettings(endpoint)
