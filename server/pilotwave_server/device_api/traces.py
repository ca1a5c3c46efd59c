"""The spans of directives and check-ins, for the first devices of each rollout.

What a device says of a trace is believed only where it names the trace of a rollout that it is
offered; then it says which span the report follows, and nothing else.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator

from starlette.types import Scope

from pilotwave_protocol.messages.check_in import CheckIn
from pilotwave_protocol.messages.directive import Entry
from pilotwave_protocol.spans import Spans
from pilotwave_protocol.tracing import HEADER, TraceContext, parse_traces, write_traces
from pilotwave_server.fleet.records import DeviceRecord

MAX_DEVICES = 100
"""Of one rollout, in each process: a collector cannot show a trace of a whole fleet."""
NAME = HEADER.lower().encode()


class DeviceTraces:
    """What one process sends of its devices' ways."""

    def __init__(self, spans: Spans) -> None:
        self._spans = spans
        self._devices: defaultdict[str, set[int]] = defaultdict(set)

    def served(self, record: DeviceRecord, began: float) -> bytes:
        """Note that a device was sent a directive; return its header's value, empty: none."""
        sent = {}
        for entry, trace in self._of(record):
            sent[entry.model] = self._record("serve directive", trace, record, entry, began)
        return write_traces(sent).encode()

    def reported(self, record: DeviceRecord, check_in: CheckIn, said: str, began: float) -> None:
        """Note that a check-in was stored; `said` is the header that came with it."""
        theirs = parse_traces(said)
        states = {report.model: str(report.state) for report in check_in.models}
        for entry, trace in self._of(record):
            parent = theirs.get(entry.model)
            if parent is not None and parent.trace_id == trace.trace_id:
                state = states.get(entry.model, "")
                self._record("report", parent, record, entry, began, state=state)

    def _of(self, record: DeviceRecord) -> Iterator[tuple[Entry, TraceContext]]:
        """The entries of a device's order that belong to a trace."""
        if record.order is None or record.ordered_in is None:
            return
        offered = record.ordered_in.rollouts
        for gone in self._devices.keys() - {r.id for found in offered.values() for r in found}:
            del self._devices[gone]
        for entry in record.order.entries:
            theirs = (r for r in offered.get(entry.model, ()) if r.id == entry.rollout)
            trace = next((r.trace for r in theirs), None)
            if entry.rollout and trace and self._takes(entry.rollout, record):
                yield entry, trace

    def _takes(self, rollout: str, record: DeviceRecord) -> bool:
        devices = self._devices[rollout]
        if len(devices) < MAX_DEVICES:
            devices.add(record.id)
        return record.id in devices

    def _record(
        self,
        name: str,
        parent: TraceContext,
        record: DeviceRecord,
        entry: Entry,
        began: float,
        **more: str,
    ) -> TraceContext:
        told = {"device": record.name, "model": entry.model, "version": entry.version}
        told |= {"rollout": entry.rollout or "", **more}
        attributes = {f"pilotwave.{key}": value for key, value in told.items()}
        return self._spans.record(name, parent, start=began, end=time.time(), attributes=attributes)


def said_in(scope: Scope) -> str:
    """Return what a request's header says of traces."""
    found = (value for name, value in scope["headers"] if name == NAME)
    return next(found, b"").decode("latin-1")
