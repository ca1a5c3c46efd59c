"""Tell the agent how this process is: one small file per process, replaced at one stroke.

The file says which version serves here, which one was refused and why, and when it was written; the
agent reads it whenever it likes. Where it cannot be written (a full disk, a folder of somebody
else's) the application goes on serving and tries again later. Any language can write such a file:
docs/device.md says what is in it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilotwave_agent.host.shared_folder import SharedFolder

SCHEMA = "pilotwave/app/1"


@dataclass(frozen=True)
class RefusedVersion:
    """A version that this process could not take, when (seconds of uptime) and why."""

    name: str
    at: float
    sentence: str


def uptime() -> float:
    """Return seconds since the machine started, suspended ones included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Heartbeat:
    """This process's file in `live/<model>/`."""

    def __init__(self, folder: Path, app: str, heartbeat_s: float) -> None:
        self.folder = folder
        self.heartbeat_s = heartbeat_s
        self.app = re.sub(r"[^A-Za-z0-9_.-]", "-", app)[:40].strip(".-") or "app"
        self.id = f"{self.app}-{os.getpid()}-{os.urandom(4).hex()}"
        self.path = folder / f"{self.id}.json"
        self.started = uptime()
        self._process = _process()
        self._told: dict[str, Any] = {}
        self._due = 0.0
        self.trouble: OSError | None = None

    def tell(
        self,
        *,
        state: str,
        serving: str | None,
        refused: RefusedVersion | None,
        shadow: dict[str, str] | None = None,
    ) -> None:
        """Write the file if it says something new or the last sign of life is too old."""
        said = {
            "state": state,
            "serving": serving,
            "refused": vars(refused) if refused else None,
            **({"shadow": shadow} if shadow else {}),
        }
        if said == self._told and uptime() < self._due:
            return
        now = uptime()
        words = {
            "schema": SCHEMA,
            "app": self.app,
            **self._process,
            "started": round(self.started, 2),
            "beat": round(now, 2),
            "heartbeat_s": self.heartbeat_s,
            **said,
        }
        self._due = now + self.heartbeat_s
        if replace_file(self.path, json.dumps(words).encode() + b"\n", self._note):
            self._told = said

    def due_s(self) -> float:
        """Return in how many seconds the next sign of life is due."""
        return max(self._due - uptime(), 0.0)

    def _note(self, trouble: OSError | None) -> None:
        if trouble and (self.trouble is None or trouble.errno != self.trouble.errno):
            import logging  # here, so that importing the SDK stays cheap

            words = "pilotwave: %s: %s; the agent does not hear of this process until it can"
            logging.getLogger("pilotwave.live").warning(words, self.folder, trouble.strerror)
        self.trouble = trouble


def replace_file(path: Path, data: bytes, note: Any = lambda trouble: None) -> bool:
    """Replace a file at one stroke, without waiting for the medium; False if it cannot be."""
    try:
        if not path.parent.is_dir():
            path.parent.mkdir(mode=0o755)
        with SharedFolder(path.parent) as folder:
            folder.replace(path.name, data)
    except OSError as e:
        note(e)
        return False
    note(None)
    return True


def _process() -> dict[str, Any]:
    """Return what tells this process from a later one of the same number, where /proc says it."""
    found: dict[str, Any] = {"pid": os.getpid()}
    with contextlib.suppress(OSError, IndexError):
        stat = Path("/proc/self/stat").read_text(encoding="ascii", errors="replace")
        found["start"] = stat.rpartition(")")[2].split()[19]
        found["ns"] = os.readlink("/proc/self/ns/pid")
    return found
