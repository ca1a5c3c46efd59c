"""What the owner says of the device: facts of the settings, and those that a program prints.

The program is asked whenever facts are read. What it last said stands where it fails, so that an
application which is down for a moment takes no model from the device.
"""

from __future__ import annotations

import contextlib
import logging
import subprocess
import tempfile
from pathlib import Path

from pilotwave_agent.host.disk import Disk
from pilotwave_agent.runtimes import holder
from pilotwave_agent.settings.facts import FactSettings, read_app_facts
from pilotwave_protocol import strictjson
from pilotwave_protocol.errors import ProtocolError
from pilotwave_protocol.fields import Scalar

MAX_ANSWER = 8192
logger = logging.getLogger(__name__)


class NoAnswer(Exception):
    """The program said nothing that can be used."""


def said_facts(settings: FactSettings, kept: Path) -> dict[str, Scalar]:
    """Return the facts; a program's stand before fixed ones. `kept` holds what it last said."""
    if not settings.command:
        return dict(settings.app)
    last = _last(kept)
    try:
        raw = _ask(settings)
        told = _read(raw)
    except NoAnswer as e:
        logger.warning("facts.command: %s; what it said before stands", e)
        told = {} if last is None else _read(last)
    else:
        if raw != last:
            with contextlib.suppress(OSError):  # a full disk: it is asked again
                Disk().write_atomic(kept, raw)
    return {**settings.app, **told}


def _last(kept: Path) -> bytes | None:
    """What the program said before, if that can still be read."""
    try:
        raw = kept.read_bytes()
        _read(raw)
    except (OSError, NoAnswer):
        return None
    return raw


def _read(raw: bytes) -> dict[str, Scalar]:
    try:
        return read_app_facts(strictjson.loads(raw, max_bytes=MAX_ANSWER, max_depth=2))
    except ProtocolError as e:
        raise NoAnswer(f'expected a JSON object like {{"app": "2.1"}}: {e}') from e


def _ask(settings: FactSettings) -> bytes:
    """Run the program, which ends with this process, and return what it printed."""
    with tempfile.TemporaryFile() as out:
        try:
            child = subprocess.Popen(
                settings.command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=holder.held(),
            )
        except OSError as e:
            raise NoAnswer(f"{settings.command[0]} cannot be started: {e.strerror}") from e
        status = holder.status_of(child, settings.timeout_s)
        if status is None:
            raise NoAnswer(f"no end within {settings.timeout_s:g} s")
        if status:
            raise NoAnswer(f"ended with status {status}")
        out.seek(0)
        return out.read(MAX_ANSWER + 1)
