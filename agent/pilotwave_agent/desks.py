"""Read what applications say of themselves in `live/<model>/`: who lives, serves, refused, crashed.

Their files are another program's: each is bounded, and one that makes no sense is passed over.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_FILES = 256
MAX_BYTES = 64 << 10
_LATE_BEATS = 3
_GRACE_S = 5.0
_WELL_ENDED = "stopped"
_ENDED = (_WELL_ENDED, "crashed")
_SHARED = 0o2775  # what is made inside belongs to the group too


@dataclass(frozen=True)
class Refused:
    """A version's folder that an application could not take, when (uptime) and why."""

    name: str
    at: float
    sentence: str


@dataclass(frozen=True)
class App:
    """One process of an application, as its file says. Times are seconds of uptime."""

    path: Path
    app: str
    state: str
    serving: str | None
    refused: Refused | None
    started: float
    beat: float
    heartbeat_s: float
    pid: int | None = None
    start: str | None = None
    ns: str | None = None

    def lives(self, now: float | None = None) -> bool:
        """Say whether the process is there and has given a sign of life in time."""
        if self.state in _ENDED or self.gone():
            return False
        now = uptime() if now is None else now
        patience = self.heartbeat_s * _LATE_BEATS + _GRACE_S
        return now - patience <= self.beat <= now + 1.0

    def gone(self) -> bool:
        """Say whether the kernel knows that the process has ended."""
        if self.pid is None or self.ns is None or self.ns != _own_ns():
            return False  # of another container: only its signs of life tell
        return self.start != _start_of(self.pid)

    def crashed(self, now: float | None = None) -> bool:
        """Say whether it ended without saying so."""
        return self.state == "crashed" or (self.state != _WELL_ENDED and not self.lives(now))


def uptime() -> float:
    """Return seconds since the machine started, suspended ones included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def prepare(live: Path, model: str, group: str) -> None:
    """Make the folder where a model's applications have their desks. Members of `group` may write
    there; without one, only the agent's own user may. No model: the folder of all. May raise
    `OSError`."""
    for folder in dict.fromkeys((live, live / model)):
        folder.mkdir(exist_ok=True)
        if group:
            import grp

            found = folder.stat()
            gid = grp.getgrnam(group).gr_gid
            if (found.st_gid, stat.S_IMODE(found.st_mode)) != (gid, _SHARED):
                os.chown(folder, -1, gid)
                folder.chmod(_SHARED)


def read(folder: Path) -> list[App]:
    """Return the applications that have a desk for a model, by file name."""
    return [app for path in names(folder, ".json") if (app := _app(path))]


def names(folder: Path, ending: str) -> Iterator[Path]:
    """Yield a folder's visible files of one ending, at most `MAX_FILES`."""
    try:
        found = sorted(n for n in os.listdir(folder) if n.endswith(ending) and n[0] != ".")
    except OSError:
        return
    for name in found[:MAX_FILES]:
        yield folder / name


def load(path: Path) -> Any:
    """Return the JSON of a small regular file; None for anything else."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(path, flags)
    except OSError:
        return None
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_BYTES:
            return None
        return json.loads(os.read(fd, MAX_BYTES))
    except (ValueError, RecursionError, OSError):
        return None
    finally:
        os.close(fd)


def _app(path: Path) -> App | None:
    found = load(path)
    if not isinstance(found, dict) or found.get("schema") != "pilotwave/app/1":
        return None
    try:
        no = found.get("refused")
        return App(
            path=path,
            app=printable(found["app"], 64),
            state=str(found["state"]),
            serving=None if found.get("serving") is None else str(found["serving"]),
            refused=Refused(str(no["name"]), float(no["at"]), printable(no["sentence"], 400))
            if no
            else None,
            started=float(found["started"] if "started" in found else found["beat"]),
            beat=float(found["beat"]),
            heartbeat_s=min(max(float(found["heartbeat_s"]), 0.05), 3600.0),
            pid=int(found["pid"]) if "pid" in found else None,
            start=str(found["start"]) if "start" in found else None,
            ns=str(found["ns"]) if "ns" in found else None,
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def printable(text: object, limit: int) -> str:
    """Return text from another program as one that may be shown."""
    return "".join(c for c in str(text) if c.isprintable())[:limit]


def _own_ns() -> str | None:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return None


def _start_of(pid: int) -> str | None:
    """Return when a process began (clock ticks, as /proc has it); None if there is none."""
    with contextlib.suppress(OSError, IndexError):
        stat_line = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        fields = stat_line.rpartition(")")[2].split()
        return None if fields[0] in ("Z", "X") else fields[19]
    return None
