"""A list of devices as CSV, a few hundred rows at a time."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from unicodedata import category, normalize

from sqlalchemy import ColumnElement

from pilotwave_server.context import Context
from pilotwave_server.devices import service
from pilotwave_server.devices.presence import LastPolls
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
_BREAKS = frozenset({"Cc", "Zl", "Zp"})
_INVISIBLE = frozenset({*_BREAKS, "Cf", "Zs"})
_FORMULA = frozenset("=+-@\N{MINUS SIGN}")


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
            polled = context.get(LastPolls).of
            shown = [summary(row, models[row.id], polled(row.name), quiet) for row in found]
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
    out = io.StringIO()
    csv.writer(out).writerow([harmless(field) for field in fields])
    return out.getvalue()


def harmless(text: str) -> str:
    """`text` for a cell of a spreadsheet: on one line, and no formula.

    A part that would be one begins with a quote. Spreadsheets skip blanks and characters that are
    not seen before it, take wide and raised forms of its first character for the plain one, and in
    some countries part cells at semicolons.
    """
    line = "".join(" " if category(char) in _BREAKS else char for char in text)
    return ";".join(f"'{part}" if _is_formula(part) else part for part in line.split(";"))


def _is_formula(text: str) -> bool:
    seen = next((char for char in text if category(char) not in _INVISIBLE), "")
    return normalize("NFKC", seen) in _FORMULA
