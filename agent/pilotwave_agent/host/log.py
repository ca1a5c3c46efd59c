"""Say what happens: lines for people on a terminal, JSON for the system's journal.

Systemd is recognised by what it puts into the environment; `PILOTWAVE_LOG=text` or `json` decides
otherwise. Where the owner lets somebody read the log from afar, the last lines are kept in a file.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from datetime import datetime, timezone
from pathlib import Path

from pilotwave_protocol.fields import format_time

KEPT_BYTES = 128 << 10
"""Of each of the two files that hold the last lines."""
_kept: Path | None = None


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
    at = format_time(datetime.now(timezone.utc))
    if _kept is not None:
        _keep(_kept, f"{at} {level} {line}\n")
    if structured():
        told = {k: v for k, v in fields.items() if v is not None}
        line = json.dumps({"at": at, "level": level, "message": line, **told})
    with contextlib.suppress(OSError):  # a log on a full disk, or a pipe that nobody reads
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


def keep_in(path: Path | None) -> None:
    """Keep the last lines in a file, and those before them in another beside it; None: no more."""
    global _kept
    _kept = path


def kept_lines(path: Path) -> list[str]:
    """Return the lines that are kept, the oldest first."""
    found = b""
    for each in (_older(path), path):
        with contextlib.suppress(OSError):
            found += each.read_bytes()
    return found.decode("utf-8", "replace").splitlines()


def _keep(path: Path, line: str) -> None:
    with contextlib.suppress(OSError):
        if path.exists() and path.stat().st_size > KEPT_BYTES:
            path.replace(_older(path))
        with open(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab") as out:
            out.write(line.encode("utf-8", "replace"))


def _older(path: Path) -> Path:
    return path.with_suffix(".before")
