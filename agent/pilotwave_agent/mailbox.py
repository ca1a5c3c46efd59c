"""A Unix socket for applications in any language: they send what `LiveModel` would write.

One datagram is one JSON object: how a process is (`pilotwave/app/1`, written to its desk) or
numbers that it measured (`pilotwave/sample/1`, counted into sketches). Nothing is answered, and
what makes no sense is passed over. While no agent runs, sends fail and applications go on.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pilotwave_agent import desks
from pilotwave_protocol import names
from pilotwave_protocol.errors import ProtocolError

if TYPE_CHECKING:
    from pilotwave_agent.live.recorder import Recorder

NAME = "agent.sock"
_MAX_MESSAGE = 64 << 10
_MAX_AT_ONCE = 256
_MAX_NUMBERS = 1000
_MAX_DESKS = 64
_MAX_VERSIONS = 8
_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_WORDS = ("app", "state", "serving", "refused", "pid", "start", "ns", "started", "heartbeat_s")


class Mailbox:
    """The socket `live/agent.sock` of the resident agent."""

    def __init__(self, live: Path, group: str) -> None:
        """Bind it, in place of one that a killed agent left. May raise `OSError`."""
        self._live = live
        self._recorders: dict[str, Recorder] = {}
        self._versions: dict[str, set[str]] = {}
        desks.prepare(live, "", group)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        folder = os.open(live, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(NAME, dir_fd=folder)
            # by way of /proc: a socket's own path may have 107 bytes only
            self._socket.bind(f"/proc/self/fd/{folder}/{NAME}")
            os.chmod(NAME, 0o660 if group else 0o600, dir_fd=folder)
        except OSError:
            self._socket.close()
            raise
        finally:
            os.close(folder)

    def fileno(self) -> int:
        """Return the descriptor that is readable when there is mail."""
        return self._socket.fileno()

    def empty(self) -> None:
        """Take what has come in."""
        for _ in range(_MAX_AT_ONCE):
            try:
                raw = self._socket.recv(_MAX_MESSAGE)
            except OSError:
                return
            with contextlib.suppress(
                ProtocolError, ValueError, TypeError, KeyError, OverflowError, RecursionError
            ):
                self._take(json.loads(raw))

    def _take(self, said: dict[str, Any]) -> None:
        model = names.check_model(said["model"])
        if not (self._live / model).is_dir():
            return  # no such model on this device
        if said["schema"] == "pilotwave/app/1":
            self._write_desk(self._live / model, said)
        elif said["schema"] == "pilotwave/sample/1":
            self._count(model, names.check_version(said["version"]), said["numbers"])

    def _write_desk(self, folder: Path, said: dict[str, Any]) -> None:
        from pilotwave_agent.live.desk import replace_file

        name = str(said["id"])
        path = folder / f"{name}.json"
        if not _ID.fullmatch(name):
            return
        if not path.exists() and len(list(desks.names(folder, ".json"))) >= _MAX_DESKS:
            return
        words = {word: said[word] for word in _WORDS if word in said}
        told = {
            "schema": said["schema"],
            "app": name,
            "heartbeat_s": 15,
            **words,
            "beat": round(desks.uptime(), 2),
        }
        replace_file(path, json.dumps(told, allow_nan=False).encode() + b"\n")

    def _count(self, model: str, version: str, numbers: dict[str, Any]) -> None:
        from pilotwave_agent.live.generation import Version
        from pilotwave_agent.live.recorder import Recorder

        known = self._versions.setdefault(model, set())
        if version not in known and len(known) >= _MAX_VERSIONS:
            return
        known.add(version)
        recorder = self._recorders.get(model)
        if recorder is None:
            recorder = self._recorders[model] = Recorder(self._live / model, f"mail-{os.getpid()}")
        of = Version(model, version, "", "", version, Path())
        for metric, values in dict(numbers).items():
            names.check_metric(metric)
            values = values if isinstance(values, list) else [values]
            for value in values[:_MAX_NUMBERS]:
                recorder.number(of, metric, float(value))

    def flush(self) -> None:
        """Put what was counted where it is collected."""
        for recorder in self._recorders.values():
            recorder.flush()
        self._versions.clear()

    def close(self) -> None:
        """Close the socket and remove it."""
        self.flush()
        self._socket.close()
        with contextlib.suppress(OSError):
            (self._live / NAME).unlink()
