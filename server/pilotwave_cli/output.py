"""What people and scripts see: tables with relative times, or JSON as the server gave it.

Text that came from elsewhere is shown without control characters and never read as markup, so
that a device cannot colour or clear an operator's terminal.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timezone
from typing import Annotated, Any

import humanize
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Row = Mapping[str, Any]
Column = tuple[str, "str | Callable[[Any], str]"]

PIPE_WIDTH = 240

err = Console(stderr=True, highlight=False)


def out() -> Console:
    """Return the console for results; made late, so that its width is the terminal's.

    A pipe has no width, and 80 columns would break digests and names that a reader searches for.
    """
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPE_WIDTH
    return Console(highlight=False, soft_wrap=False, width=width)


def plain(value: object) -> str:
    """Show a value as one line of printable text; nothing is a dash."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{plain(k)}={plain(v)}" for k, v in sorted(value.items())) or "-"
    if isinstance(value, (list, tuple)):
        return ", ".join(plain(v) for v in value) or "-"
    return "".join(c if c.isprintable() else " " for c in str(value))


def when(value: str | None, now: datetime | None = None) -> str:
    """Show a moment as people say it: `3 minutes ago`, `in 12 days`."""
    if not value:
        return "never"
    moment = datetime.fromisoformat(value.replace("Z", "+00:00"))
    return humanize.naturaltime((now or datetime.now(timezone.utc)) - moment)


def size(value: int | None) -> str:
    """Show bytes as people say them."""
    return "-" if value is None else humanize.naturalsize(value)


def tensors(found: Iterable[Any]) -> str:
    """Show inputs or outputs: `x float32[?, 1, 8, 8]`; `?` may vary."""
    shown = []
    for item in found:
        spec = item if isinstance(item, Mapping) else vars(item)
        sizes = ", ".join("?" if n < 0 else str(n) for n in spec["shape"])
        shown.append(f"{plain(spec['name'])} {plain(spec['dtype'])}[{sizes}]")
    return ", ".join(shown)


def show_json(data: Any) -> None:
    """Print JSON."""
    print(json.dumps(data, indent=2, ensure_ascii=False))


def table(
    title: str, rows: Iterable[Row], columns: Iterable[Column], *, as_json: bool = False
) -> None:
    """Print rows; each column is a title and a key, or a title and what to show of the row."""
    if as_json:
        show_json(rows)
        return
    chosen = list(columns)
    grid = Table(title=title or None, title_justify="left", box=None, header_style="bold")
    for head, _ in chosen:
        grid.add_column(head, overflow="fold")
    count = 0
    for row in rows:
        count += 1
        grid.add_row(*(escape(_cell(row, key)) for _, key in chosen))
    if count:
        out().print(grid)
    else:
        out().print(f"{title or 'List'}: empty")


def _cell(row: Row, key: str | Callable[[Any], str]) -> str:
    return plain(key(row)) if callable(key) else plain(row.get(key))


def facts(title: str, pairs: Iterable[tuple[str, object]]) -> None:
    """Print one thing as lines of name and value."""
    grid = Table(title=title or None, title_justify="left", box=None, show_header=False)
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    for name, value in pairs:
        grid.add_row(name, escape(plain(value)))
    out().print(grid)


def say(text: str) -> None:
    """Print a sentence."""
    out().print(escape(text), soft_wrap=True)


def warn(text: str) -> None:
    """Print a sentence to the error stream."""
    err.print(escape(text), soft_wrap=True)
