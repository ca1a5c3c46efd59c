"""Say what happens: lines for people on a terminal, JSON for the system's journal.

Systemd is recognised by what it puts into the environment; `PILOTWAVE_LOG=text` or `json` decides
otherwise.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from datetime import datetime, timezone

from pilotwave_protocol.fields import format_time


def structured() -> bool:
    """Say whether lines are JSON."""
    asked = os.environ.get("PILOTWAVE_LOG", "")
    if asked in ("json", "text"):
        return asked == "json"
    under_systemd = "JOURNAL_STREAM" in os.environ or "INVOCATION_ID" in os.environ
    return under_systemd and not sys.stderr.isatty()


def say(words: str, *, level: str = "info", **fields: str | int | None) -> None:
    """Say one thing, on one line; `fields` are for machines and are left out for people."""
    line = " ".join(words.split())
    if structured():
        at = format_time(datetime.now(timezone.utc))
        told = {k: v for k, v in fields.items() if v is not None}
        line = json.dumps({"at": at, "level": level, "message": line, **told})
    with contextlib.suppress(OSError):  # a log on a full disk, or a pipe that nobody reads
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
