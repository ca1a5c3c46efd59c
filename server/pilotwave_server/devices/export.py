"""A list of devices as CSV, a few hundred rows at a time."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

from sqlalchemy import ColumnElement

from pilotwave_server.context import Context
from pilotwave_server.devices import service
from pilotwave_server.devices.silence import silence
from pilotwave_server.devices.views import DeviceSummary, summary
from pilotwave_server.paging import PageRequest

COLUMNS = (
    "device",
    "standing",
    "state",
    "last_seen",
    "agent",
    "labels",
    "runs",
    "reasons",
    "refusal",
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def rows_of(context: Context, rules: Sequence[ColumnElement[bool]]) -> Iterator[str]:
    """Yield the lines, those of one page of devices at a time; no transaction outlives a page."""
    yield _line(COLUMNS)
    cursor: str | None = None
    while True:
        with context.db.read() as session:
            page = PageRequest(500, cursor)
            found, cursor = service.list_devices(session, page=page, rules=rules)
            models = service.models_of(session, found)
            quiet = silence(context.settings, context.clock())
            shown = [
                summary(row, models[row.id], context.fleet.last_seen(row.name), quiet)
                for row in found
            ]
        yield "".join(_line(_fields(device)) for device in shown)
        if cursor is None:
            return


def _fields(device: DeviceSummary) -> list[str]:
    runs = [f"{m.model} {m.current_version or '-'} ({m.state})" for m in device.models]
    return [
        device.name,
        device.standing,
        device.state,
        device.last_seen.isoformat() if device.last_seen else "",
        device.agent,
        ", ".join(f"{key}={value}" for key, value in sorted(device.labels.items())),
        ", ".join(runs),
        ", ".join(f"{m.model}: {m.reason}" for m in device.models if m.reason),
        device.refusal.reason if device.refusal else "",
    ]


def _line(fields: Sequence[str]) -> str:
    """One line. A field that a spreadsheet would take for a formula begins with a quote."""
    out = io.StringIO()
    csv.writer(out).writerow([f"'{f}" if f.startswith(_FORMULA) else f for f in fields])
    return out.getvalue()
