"""Do what a server process does for a round, and be killed before a change of the database."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from sqlalchemy import Engine, event

from pilotwave_server.blobs.filesystem import FileBlobs
from pilotwave_server.db import Database
from pilotwave_server.learning import updates
from pilotwave_server.learning.finish import finish
from pilotwave_server.learning.steer import end


def _dies_before(step: int) -> Callable[[], None]:
    """Have the process end before its write or commit of this number; the function returned is
    another step."""
    left = step

    def strike() -> None:
        nonlocal left
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    def write(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if not statement.startswith("SELECT"):
            strike()

    event.listen(Engine, "before_cursor_execute", write)
    event.listen(Engine, "commit", lambda _connection: strike())
    return strike


def take(url: str, raw: bytes, device: str, now: datetime, step: int) -> None:
    """Keep an update, as for a request."""
    db = Database(url)
    strike = _dies_before(step)
    with db.write() as session:
        updates.take(session, raw, device=device, now=now)
    strike()  # it is kept, and nobody was told


def end_round(url: str, data_dir: Path, number: int, now: datetime, step: int) -> None:
    """End the round of an experiment and work it out, as for an operator."""
    db = Database(url)
    strike = _dies_before(step)
    with db.write() as session:
        row = end(session, number, actor="token/operator", now=now)
    finish(db, FileBlobs(data_dir / "blobs", reserve=0), row, now=now)
    strike()
