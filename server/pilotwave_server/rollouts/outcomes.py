"""Decide what a device's report means for a rollout. Pure: no clock, no database.

`sign_of` reads of one report how the device stands to the rollout's version; `becomes` says what
that makes of the rollout's row of the device. Both look at how things stand, not only at what
changed: a report that another process missed is made good by the next one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, Protocol

from pilotwave_protocol.messages.check_in import DeviceEvent, ModelReport
from pilotwave_protocol.names import AGENT_MODEL, is_version_of_agent
from pilotwave_protocol.states import ModelState, Reason
from pilotwave_server.rollouts.leases import (
    DID_NOT,
    EXPIRED,
    FAILED,
    HEALTHY,
    KEEPS,
    RETURNED,
    ROLLED_BACK,
    SHADOW_LEASED,
    SHADOWING,
    SWITCHED,
    TOOK_IT,
    UNUSED,
)

S = ModelState
LEFT = "left"
SHADOW_ENDED = "shadow_ended"
_COMING = frozenset({S.FETCHING, S.VERIFYING, S.STAGED, S.TESTING, S.SWITCHING})
# the version was taken from the device by others, whatever it was worth
SENT_BACK = frozenset({str(Reason.OPERATOR_ROLLBACK), str(Reason.YANKED), str(Reason.BELOW_FLOOR)})


class Stand(str, Enum):
    """How a device stands to a version, as its report has it."""

    ABSENT = "absent"
    COMING = "coming"
    IN_SHADOW = "in_shadow"
    ON_TRIAL = "on_trial"
    WELL = "well"
    FAILED = "failed"
    WENT_BACK = "went_back"


@dataclass(frozen=True)
class Report:
    """What a report says of the version; times are never later than the report. `rests` is whether
    the device is well on what it runs."""

    stand: Stand
    reason: str | None = None
    detail: str | None = None
    came_from: str | None = None
    switched_at: datetime | None = None
    rests: bool = False


class KnownOutcome(Protocol):
    """A rollout's row of a device."""

    @property
    def outcome(self) -> str: ...
    @property
    def changed_at(self) -> datetime: ...
    @property
    def switched_at(self) -> datetime | None: ...
    @property
    def left_at(self) -> datetime | None: ...
    @property
    def counts_from(self) -> int: ...


def sign_of(
    report: ModelReport,
    events: Sequence[DeviceEvent],
    version: str,
    *,
    now: datetime,
    agent: str = "",
) -> Report:
    """Return how the device stands to `version`, by its report and the events that came with it.

    Of the agent itself, what counts is `agent`, the one that wrote the report: a device is well on
    a version once it reports as that version.
    """
    mine = [e for e in events if (e.model, e.version) == (report.model, version)]
    switched = max((min(e.at, now) for e in mine if e.kind == "switched"), default=None)
    current = report.current.version if report.current else None
    candidate = report.candidate.version if report.candidate else None
    told = (report.reason, report.detail)
    if current == version:
        if report.state is S.FAILED and candidate == version and not _other_variant(report):
            return Report(Stand.FAILED, *told, switched_at=switched)
        came_from = report.previous.version if report.previous else None
        trial = report.state in (S.PROBATION, S.ROLLING_BACK)
        if report.model == AGENT_MODEL:
            trial = trial or not is_version_of_agent(agent, version)
        return Report(Stand.ON_TRIAL if trial else Stand.WELL, None, None, came_from, switched)
    if report.state is S.FAILED and candidate == version:
        return Report(Stand.FAILED, *told)
    if report.state in _COMING and candidate == version:
        return Report(Stand.COMING)
    if report.state is S.SHADOWING and candidate == version:
        return Report(Stand.IN_SHADOW)
    if report.state is S.ROLLED_BACK and candidate == version:
        return _went_back(*told, current, switched)
    rests = report.state is S.HEALTHY
    gone = next((e for e in reversed(mine) if e.kind == "rolled_back"), None)
    if gone is not None:
        return _went_back(gone.reason, gone.detail, current, switched, rests=rests)
    return Report(Stand.ABSENT, came_from=current, switched_at=switched, rests=rests)


def _other_variant(report: ModelReport) -> bool:
    """Say whether another variant of the version was tried, and the device runs on with its own."""
    current, candidate = report.current, report.candidate
    return current is not None and candidate is not None and current.variant != candidate.variant


def _went_back(
    reason: str | None,
    detail: str | None,
    current: str | None,
    switched: datetime | None,
    *,
    rests: bool = False,
) -> Report:
    stand = Stand.ABSENT if reason in SENT_BACK else Stand.WENT_BACK
    return Report(stand, reason, detail, current, switched, rests)


def becomes(
    row: KnownOutcome | None, sign: Report, *, directive_seq: int, sending_back: bool, now: datetime
) -> dict[str, Any] | None:
    """Return what changes in the device's row (None: nothing), or what a new one begins with.

    `directive_seq` is that of the directive which the report was made under; `sending_back` holds
    while the rollout's devices are sent back, which is no device's failure.
    """
    outcome = None if row is None else row.outcome
    if outcome == RETURNED:
        return None  # what it runs now is no word of this rollout's
    match sign.stand:
        case Stand.ON_TRIAL:
            return _took(row, SWITCHED, sign, now) if outcome not in TOOK_IT else None
        case Stand.WELL:
            return _took(row, HEALTHY, sign, now) if outcome != HEALTHY else None
        case Stand.FAILED:
            stale = row is not None and directive_seq < row.counts_from
            return None if outcome in DID_NOT or stale else _failed(FAILED, sign, now)
        case Stand.WENT_BACK:
            stale = row is not None and directive_seq < row.counts_from
            if outcome in DID_NOT or stale:
                return None
            left = {} if row is None or row.left_at is None else {"left_at": row.left_at}
            switched = (row.switched_at if row else None) or sign.switched_at
            gone = {"left_at": now, "switched_at": switched, "came_from": sign.came_from, **left}
            return {**_failed(ROLLED_BACK, sign, now), **gone}
        case Stand.COMING:
            return {"changed_at": now} if outcome in UNUSED else None
        case Stand.IN_SHADOW:
            return _joined(now) if outcome == SHADOW_LEASED else None
        case _:
            return None if row is None else _absent(row, sign, now, sending_back=sending_back)


def _took(row: KnownOutcome | None, outcome: str, sign: Report, now: datetime) -> dict[str, Any]:
    since = row.switched_at if row is not None and row.outcome in TOOK_IT else None
    changes: dict[str, Any] = {
        "outcome": outcome,
        "changed_at": now,
        "switched_at": since or sign.switched_at or now,
        "left_at": None,
        "reason": None,
        "detail": None,
    }
    # a device in good health may have made the version before it go by now
    if row is None or row.outcome not in TOOK_IT:
        changes["came_from"] = sign.came_from
    return changes


def _joined(now: datetime) -> dict[str, Any]:
    """The device began to try the version in shadow."""
    return {"outcome": SHADOWING, "changed_at": now, "reason": None, "detail": None}


def _failed(outcome: str, sign: Report, now: datetime) -> dict[str, Any]:
    return {
        "outcome": outcome,
        "changed_at": now,
        "reason": None if sign.reason is None else sign.reason[:64],
        "detail": None if sign.detail is None else sign.detail[:512],
    }


def _absent(
    row: KnownOutcome, sign: Report, now: datetime, *, sending_back: bool
) -> dict[str, Any] | None:
    """The device runs something else, and not because the version failed there."""
    if row.outcome == SHADOWING and sign.rests:
        return {"outcome": EXPIRED, "changed_at": now, "reason": SHADOW_ENDED}
    if row.outcome not in TOOK_IT:
        return None
    if row.outcome == SWITCHED and not sending_back:
        return {"outcome": EXPIRED, "changed_at": now, "reason": LEFT, "left_at": now}
    if sending_back and sign.rests and sign.came_from is not None:
        detail = f"taken back with the rollout; it runs {sign.came_from}"
        left_at = row.left_at or now
        return {"outcome": RETURNED, "changed_at": now, "left_at": left_at, "detail": detail}
    return {"left_at": now} if row.left_at is None else None


def keeps(outcome: str | None) -> bool:
    """Say whether a device with this outcome goes on being offered the version while paused."""
    return outcome in KEEPS
