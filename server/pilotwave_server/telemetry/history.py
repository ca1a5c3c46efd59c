"""What a report adds to a device's history: versions that were switched to, proved healthy, failed
or were rolled back, and whose inputs drifted. Pure.

The device's events say so with their time. Where an event is missing (a device that was offline for
long drops some), the difference between the last report and this one says it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

from pilotwave_protocol.messages.check_in import DeviceEvent, ModelReport
from pilotwave_protocol.reference import DRIFTED
from pilotwave_protocol.states import ModelState

SWITCHED, HEALTHY, FAILED, ROLLED_BACK = "switched", "healthy", "failed", "rolled_back"
REMOVED = "removed"
"""The kind of the event of a model that was removed from a device."""
KINDS = frozenset({SWITCHED, HEALTHY, FAILED, ROLLED_BACK, DRIFTED})


class Became(NamedTuple):
    """A version became something on a device."""

    model: str
    version: str
    became: str
    reason: str | None
    at: datetime
    detail: str | None = None


class LastReport(Protocol):
    """What the last report said of a model."""

    @property
    def state(self) -> str: ...
    @property
    def current_version(self) -> str | None: ...
    @property
    def candidate_version(self) -> str | None: ...


def told_by(events: Sequence[DeviceEvent], *, now: datetime) -> list[Became]:
    """Return what events say. A device's clock may be ahead; nothing is dated later than `now`."""
    return [
        Became(
            *(e.model, e.version, e.kind, e.reason, min(e.at, now)),
            e.detail if e.kind == DRIFTED else None,
        )
        for e in events
        if e.kind in KINDS and e.model is not None and e.version is not None
    ]


def shown_by(
    report: ModelReport, before: LastReport | None, *, told: Sequence[Became], now: datetime
) -> list[Became]:
    """Return what the difference between two reports shows and no event has told."""
    said = {(t.version, t.became) for t in told if t.model == report.model}
    shown = (Became(report.model, *change, now) for change in _changes(report, before))
    return [s for s in shown if (s.version, s.became) not in said]


def _changes(
    report: ModelReport, before: LastReport | None
) -> Iterator[tuple[str, str, str | None]]:
    """Yield (version, became, reason) for what two reports in a row show."""
    state = str(report.state)
    is_new_state = before is None or before.state != state
    current = report.current.version if report.current else None
    was_current = before.current_version if before else None
    if report.state is ModelState.ROLLED_BACK and is_new_state:
        gone = was_current if was_current != current else None
        gone = gone or (before.candidate_version if before else None)
        if gone and gone != current:
            yield gone, ROLLED_BACK, report.reason
        return
    if current is not None and current != was_current:
        yield current, SWITCHED, None
    tried = before is not None and before.state == ModelState.SHADOWING  # it was well all along
    became_well = current != was_current or (is_new_state and not tried)
    if report.state is ModelState.HEALTHY and current and became_well:
        yield current, HEALTHY, None
    if report.state is ModelState.FAILED and is_new_state:
        failed = report.candidate.version if report.candidate else None
        failed = failed or (before.candidate_version if before else None)
        if failed:
            yield failed, FAILED, report.reason
