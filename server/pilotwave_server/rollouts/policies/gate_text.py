"""Read the gates of a wave: one with a `metric` looks at live metrics, any other at installs."""

from __future__ import annotations

from typing import Any

from pilotwave_protocol.names import check_metric, check_selector_key
from pilotwave_server.rollouts.policies.document import Gate, InstallGate, MetricGate
from pilotwave_server.rollouts.policies.faults import Faults
from pilotwave_server.rollouts.policies.kinds import matching, named, share, text, whole, word
from pilotwave_server.rollouts.policies.section import Section

MAX_GATES = 16
MAX_SLICES = 8
_BOTH = ("name", "alpha", "slice_by")
_STATISTIC = matching(
    r"mean|p(?:[1-9][0-9]?)(?:\.[0-9])?", "`mean`, or a quantile as `p50`, `p95` or `p99.9`"
)
_ALPHA = share(0.000001, 0.2)


def read_gates(wave: Section) -> tuple[Gate, ...]:
    """Return the wave's gates; their names differ."""
    gates: list[Gate] = []
    for item, path in wave.items("gates", MAX_GATES):
        gate = _gate(wave.faults, item, path)
        if any(gate.name == other.name for other in gates):
            wave.faults.add(
                f"{path}.name", f"expected names that differ; `{gate.name}` is there twice"
            )
        gates.append(gate)
    return tuple(gates)


def _gate(faults: Faults, value: Any, path: str) -> Gate:
    if isinstance(value, dict) and value.get("metric") is not None:
        return _metric_gate(faults, value, path)
    part = Section(faults, value, path, keys=(*_BOTH, "max_failure_rate", "metric"))
    usual = InstallGate()
    return InstallGate(
        name=part.take("name", text(64), usual.name),
        max_failure_rate=part.take("max_failure_rate", share(0.0001, 0.99), usual.max_failure_rate),
        alpha=part.take("alpha", _ALPHA, usual.alpha),
        slice_by=part.list_of("slice_by", named(check_selector_key), MAX_SLICES),
    )


def _metric_gate(faults: Faults, value: Any, path: str) -> MetricGate:
    keys = ("metric", "statistic", "worse", "min_effect", "min_devices", "min_windows")
    part = Section(faults, value, path, keys=(*_BOTH, *keys))
    metric = part.need("metric", named(check_metric), "")
    statistic = part.take("statistic", _STATISTIC, MetricGate.statistic)
    return MetricGate(
        name=part.take("name", text(64), f"{metric[:50]} {statistic}"),
        metric=metric,
        statistic=statistic,
        worse=part.take("worse", word("higher", "lower"), MetricGate.worse),
        min_effect=part.take("min_effect", share(0, 10), MetricGate.min_effect),
        min_devices=part.take("min_devices", whole(1, 1_000_000), MetricGate.min_devices),
        min_windows=part.take("min_windows", whole(1, 1_000_000), MetricGate.min_windows),
        alpha=part.take("alpha", _ALPHA, MetricGate.alpha),
        slice_by=part.list_of("slice_by", named(check_selector_key), MAX_SLICES),
    )
