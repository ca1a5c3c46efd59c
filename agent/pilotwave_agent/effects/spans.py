"""Tell of the steps that were taken, as spans, to the process that sends them (`traces`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pilotwave_agent.core import steps
from pilotwave_agent.core.records import Record, state_after

SPANS: Mapping[type, str] = {
    steps.Fetch: "download",
    steps.Stage: "verify",
    steps.Trial: "self-test",
    steps.Switch: "switch",
    steps.Confirm: "application takes it",
    steps.Probe: "probation",
    steps.Restore: "restore",
}
_REPEATED = (steps.Confirm, steps.Probe)


def tell_span(
    tell: Callable[[dict[str, Any]], None],
    step: Any,
    *,
    start: float,
    end: float,
    about: Mapping[str, str],
    record: Record | None = None,
    error: str = "",
) -> None:
    """Tell of a step that was taken, if it is one of those that are shown."""
    name = SPANS.get(type(step))
    if name is None:
        return
    if isinstance(step, _REPEATED) and not error and "event" not in (record or {}):
        return  # it was asked, and nothing has come of it yet
    if record is not None and "failed" in record:
        error = str(record["failed"]["reason"])
    state = {} if record is None or "s" not in record else {"state": str(state_after(record))}
    told = {"model": step.model, "name": name, "start": start, "end": end, "error": error}
    tell({"span": {**told, "about": {"model": step.model, **about, **state}}})
