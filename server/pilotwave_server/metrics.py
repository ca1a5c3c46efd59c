"""What the server counts and measures, in the Prometheus form; `docs/reference.md` lists it.

One registry per app, so that two servers in one process (the tests) keep their own. What is read
from the database is read when /metrics is asked, by the functions given to `add_reading`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Reading = Callable[[], Iterable[Metric]]


class Metrics:
    """The counters of one server process."""

    def __init__(self, *more: Collector) -> None:
        """`more` are metrics of modules that no app has to itself."""
        self._counted = CollectorRegistry()
        for one in more:
            self._counted.register(one)
        self._read = CollectorRegistry()
        self.requests = Counter(
            "pilotwave_http_requests_total",
            "HTTP requests, without the device routes counted on their own.",
            ["method", "route", "status"],
            registry=self._counted,
        )
        self.request_seconds = Histogram(
            "pilotwave_http_request_seconds",
            "Time from the request to the last byte of its answer.",
            ["method", "route"],
            buckets=(0.005, 0.02, 0.1, 0.5, 2, 10, 60),
            registry=self._counted,
        )
        self.polls = Counter(
            "pilotwave_polls_total",
            "Directive polls by the status of their answer (200, 304, 401, 403, 503).",
            ["status"],
            registry=self._counted,
        )
        self.check_ins = Counter(
            "pilotwave_check_ins_total",
            "Check-ins by result: stored, or the code of the refusal.",
            ["result"],
            registry=self._counted,
        )
        self.downloads = Gauge(
            "pilotwave_downloads",
            "Downloads by devices that run.",
            registry=self._counted,
            multiprocess_mode="livesum",
        )
        self.downloads_refused = Counter(
            "pilotwave_downloads_refused_total",
            "Downloads that were told to come again later.",
            registry=self._counted,
        )
        self.bytes_sent = Counter(
            "pilotwave_sent_bytes_total",
            "Bytes of files sent to devices: full (whole files) or delta.",
            ["kind"],
            registry=self._counted,
        )
        self.webhook_calls = Counter(
            "pilotwave_webhook_calls_total",
            "Calls of webhooks by result: delivered or failed.",
            ["result"],
            registry=self._counted,
        )

    def add_reading(self, reading: Reading) -> None:
        """Have `reading` called for its gauges each time the metrics are asked for."""
        self._read.register(_Reader(reading))

    def render(self) -> bytes:
        """All metrics as text; counts are summed over the server's processes."""
        counted = self._counted
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            counted = CollectorRegistry()
            MultiProcessCollector(counted)  # type: ignore[no-untyped-call]  # untyped there
        return generate_latest(counted) + generate_latest(self._read)


class _Reader(Collector):
    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def collect(self) -> Iterator[Metric]:
        yield from self._reading()

    def describe(self) -> Iterable[Metric]:
        # Without this the registry would query the database when the reading is added.
        return []


def gauge(
    name: str, help: str, label: str, values: Iterable[tuple[str, float]]
) -> GaugeMetricFamily:
    """One gauge with one label: `gauge("pilotwave_devices", "…", "state", [("enrolled", 3)])`."""
    family = GaugeMetricFamily(name, help, labels=[label])
    for value_of_label, value in values:
        family.add_metric([value_of_label], value)
    return family
