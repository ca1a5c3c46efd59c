"""Cut a report to what its registry takes: a device whose report is too large must not fall silent.

Long sentences go first, then versions that do not run, then whole models: those that are neither
ordered nor in trouble. The status on the device has all of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from pilotwave_protocol.messages.check_in import (
    MAX_REPORTS,
    SMALL_CHECK_IN_BYTES,
    CheckIn,
    ModelReport,
)
from pilotwave_protocol.messages.directive import SMALL_ENTRIES

_SHORT = 80


def room(max_bytes: int) -> int:
    """Return how many bytes a payload may have; its envelope is a third larger."""
    return max_bytes * 11 // 16


def trimmed(report: CheckIn, ordered: Collection[str], *, max_bytes: int) -> CheckIn:
    """Return the report, cut until its envelope has at most `max_bytes`; a registry that takes no
    more than `SMALL_CHECK_IN_BYTES` takes no more than `SMALL_ENTRIES` models either."""
    most = MAX_REPORTS if max_bytes > SMALL_CHECK_IN_BYTES else SMALL_ENTRIES
    first = sorted(report.models, key=lambda m: (m.model not in ordered, not m.reason, m.model))
    report = replace(report, models=_by_name(first[:most]))
    for shorter in _shorter(report):
        report = shorter
        if len(report.to_bytes()) <= room(max_bytes):
            return report
    while report.models and len(report.to_bytes()) > room(max_bytes):
        kept = list(_within(first, report))
        report = replace(report, models=_by_name(kept[: len(kept) * 7 // 8]))
    return report


def _shorter(report: CheckIn) -> Iterator[CheckIn]:
    yield report
    report = replace(report, models=tuple(_said_in_short(m) for m in report.models))
    yield report
    yield replace(report, models=tuple(replace(m, previous=None) for m in report.models))


def _said_in_short(model: ModelReport) -> ModelReport:
    detail = model.detail
    if detail and len(detail) > _SHORT:
        detail = f"{detail[: _SHORT - 1]}…"
    return replace(model, detail=detail)


def _within(first: list[ModelReport], report: CheckIn) -> Iterator[ModelReport]:
    left = {m.model: m for m in report.models}
    return (left[m.model] for m in first if m.model in left)


def _by_name(models: list[ModelReport]) -> tuple[ModelReport, ...]:
    return tuple(sorted(models, key=lambda m: m.model))
