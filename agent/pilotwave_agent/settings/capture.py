"""`[capture]` of the settings file: which inputs are worth learning from, and who may read them.

    [capture]
    reader = "5f0c…"
    reasons = ["low_score", "uniform"]

Without a reader nothing is captured. docs/captures.md says what becomes of a case.
"""

from __future__ import annotations

from dataclasses import dataclass

from pilotwave_agent.settings.dayhours import DayHours
from pilotwave_agent.settings.diagnostics import check_reader
from pilotwave_agent.settings.download_limits import read_windows
from pilotwave_protocol.fields import Fields
from pilotwave_protocol.messages.case import MAX_SEALED_CASE_BYTES

LOW_SCORE, DRIFT, OVERRULED, UNIFORM = "low_score", "drift", "overruled", "uniform"
SHADOW_DISAGREEMENT = "shadow_disagreement"
REASONS = (LOW_SCORE, DRIFT, OVERRULED, SHADOW_DISAGREEMENT, UNIFORM)
_HOURS_A_DAY = 24


@dataclass(frozen=True)
class CaptureSettings:
    """Whose key opens the cases (64 hex digits), and why inputs are captured: a `score` below
    `below`, a confidence below the reference's while inputs drift, another class by the bigger
    model that was asked (`Tiered`), another answer by a version that is tried in shadow, or a
    `share` of all calls. One case is at most `max_case_kb`; at most `max_mb` wait, for `keep_days`.
    A case stays here for `hold_hours`, so that the owner may look at the list and forget some. At
    most `max_mb_per_day` are written and sent a day, in `windows` if there are any, and never over
    a metered network."""

    reader: str = ""
    reasons: tuple[str, ...] = ()
    below: float = 0.5
    share: float = 0.001
    max_case_kb: int = 1024
    max_mb: int = 64
    max_mb_per_day: int = 16
    keep_days: int = 7
    hold_hours: int = 0
    windows: tuple[DayHours, ...] = ()


def read_capture(f: Fields) -> CaptureSettings:
    """Read the section, or raise what `f` raises."""
    reader = f.text("reader", default="")
    if reader:
        check_reader(f, "reader", reader)
    found = CaptureSettings(
        reader=reader,
        reasons=_reasons(f),
        below=f.number("below", low=-1e300, high=1e300, default=0.5),
        share=f.number("share", low=0.0, high=1.0, default=0.001),
        max_case_kb=f.integer("max_case_kb", low=1, high=MAX_SEALED_CASE_BYTES >> 10, default=1024),
        max_mb=f.integer("max_mb", low=1, high=1 << 20, default=64),
        max_mb_per_day=f.integer("max_mb_per_day", low=1, high=1 << 20, default=16),
        keep_days=f.integer("keep_days", low=1, high=365, default=7),
        hold_hours=f.integer("hold_hours", low=0, high=365 * _HOURS_A_DAY, default=0),
        windows=read_windows(f),
    )
    f.done()
    if found.hold_hours >= found.keep_days * _HOURS_A_DAY:
        raise f.fail("hold_hours", "less than keep_days, or nothing is ever sent", found.hold_hours)
    if bool(found.reader) is not bool(found.reasons):
        words = f"reader and reasons together; reasons are {', '.join(REASONS)}"
        raise f.fail("reasons", words, list(found.reasons))
    return found


def _reasons(f: Fields) -> tuple[str, ...]:
    found = f.texts("reasons", limit=8, default=[])
    for word in found:
        if word not in REASONS:
            raise f.fail("reasons", f"one of {', '.join(REASONS)}", word)
    return tuple(dict.fromkeys(found))
