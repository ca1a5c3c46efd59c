"""A Unix socket for applications in any language: they send what `LiveModel` would write.

One datagram is one JSON object: how a process is (`pilotwave/app/1`, written to its heartbeat file)
or numbers that it measured (`pilotwave/sample/1`, counted into sketches). Nothing is answered, and
what makes no sense is passed over. The kernel says which user sent it: no user speaks at another's
heartbeat file. While no agent runs, sends fail and applications go on.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import stat
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pilotwave_agent.apps import heartbeats
from pilotwave_agent.apps.bind import bind_in
from pilotwave_agent.apps.shadow_metrics import version_in_shadow, why_refused
from pilotwave_agent.host.log import say
from pilotwave_protocol import names
from pilotwave_protocol.errors import ProtocolError

if TYPE_CHECKING:
    from pilotwave_agent.live.generation import Version
    from pilotwave_agent.live.input_checks import InputChecks
    from pilotwave_agent.live.recorder import Recorder

NAME = "agent.sock"
_CREDENTIALS = struct.Struct("=iII")  # process, user, group
_ROOM = socket.CMSG_SPACE(_CREDENTIALS.size)
_NONSENSE = (
    *(ProtocolError, ValueError, TypeError, KeyError, OverflowError, RecursionError),
    OSError,  # the folder of a model that is none
)
_MAX_MESSAGE = 64 << 10
_MAX_AT_ONCE = 256
_MAX_NUMBERS = 1000
_MAX_DESKS = 64
_MAX_VERSIONS = 8
_MAX_SENTENCES = 64
_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_WORDS = (
    *("app", "state", "serving", "refused", "shadow", "pid", "start", "ns", "started"),
    "heartbeat_s",
)


class Mailbox:
    """The socket `live/agent.sock` of the resident agent."""

    def __init__(self, live: Path, group: str, users: heartbeats.Users | None = None) -> None:
        """Bind it, in place of one that a killed agent left. `users` may speak for their models.
        May raise `OSError`."""
        self._live, self._users = live, users or {}
        self._recorders: dict[str, Recorder] = {}
        self._refused: set[str] = set()
        self._versions: dict[str, dict[str, Version]] = {}
        self._checks: InputChecks | None = None
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        bind_in(live, self._socket, NAME, group)

    def fileno(self) -> int:
        """Return the descriptor that is readable when there is mail."""
        return self._socket.fileno()

    def empty(self) -> None:
        """Take what has come in."""
        for _ in range(_MAX_AT_ONCE):
            try:
                raw, more, _, _ = self._socket.recvmsg(_MAX_MESSAGE, _ROOM)
            except OSError:
                return
            with contextlib.suppress(*_NONSENSE):
                self._take(json.loads(raw), _sender(more))

    def _take(self, said: dict[str, Any], uid: int) -> None:
        model = names.check_model(said["model"])
        if not heartbeats.heard(uid, self._users.get(model)):
            return
        if not stat.S_ISDIR(os.lstat(self._live / model).st_mode):
            return  # no such model on this device
        if said["schema"] == "pilotwave/app/1":
            self._write_desk(self._live / model, said, uid)
        elif said["schema"] == "pilotwave/sample/1":
            self._count(model, names.check_version(said["version"]), said["numbers"])

    def _write_desk(self, folder: Path, said: dict[str, Any], uid: int) -> None:
        from pilotwave_agent.live.heartbeat import replace_file

        name = str(said["id"])
        path = folder / f"{name}.json"
        if not _ID.fullmatch(name):
            return
        owner = _owner(path)
        if owner is None and len(list(heartbeats.names(folder, ".json"))) >= _MAX_DESKS:
            return
        if owner not in (None, uid) and uid != 0:
            return  # somebody else's heartbeat file
        words = {word: said[word] for word in _WORDS if word in said}
        told = {
            "schema": said["schema"],
            "app": name,
            "heartbeat_s": 15,
            **words,
            "beat": round(heartbeats.uptime(), 2),
            "uid": uid,
        }
        replace_file(path, json.dumps(told, allow_nan=False).encode() + b"\n")

    def _count(self, model: str, version: str, numbers: dict[str, Any]) -> None:
        from pilotwave_agent.live.input_checks import CONFIDENCE, InputChecks
        from pilotwave_agent.live.recorder import Recorder

        known = self._versions.setdefault(model, {})
        if version not in known and len(known) >= _MAX_VERSIONS:
            return
        of = known.get(version) or known.setdefault(version, self._version(model, version))
        checks = self._checks = self._checks or InputChecks()
        recorder = self._recorders.get(model)
        if recorder is None:
            recorder = self._recorders[model] = Recorder(self._live / model, f"mail-{os.getpid()}")
        tried = version_in_shadow(self._live, model)
        for metric, values in dict(numbers).items():
            no = why_refused(names.check_metric(metric), version, tried)
            if no:
                self._refuse(model, no)
                continue
            values = values if isinstance(values, list) else [values]
            for value in values[:_MAX_NUMBERS]:
                recorder.number(of, metric, float(value))
                checks.number(recorder, of, metric, float(value), said=CONFIDENCE)

    def _version(self, model: str, version: str) -> Version:
        from pilotwave_agent.live.generation import Version
        from pilotwave_agent.live.links import ModelLinks

        files = ModelLinks(self._live.parent, model).files_of(version)
        return Version(model, version, "", "", files.name if files else "", files or Path())

    def _refuse(self, model: str, sentence: str) -> None:
        """Nothing is answered to who sent it, so the log says it, once for each sentence."""
        if sentence not in self._refused and len(self._refused) < _MAX_SENTENCES:
            self._refused.add(sentence)
            say(f"{model}: an application's numbers were passed over: {sentence}", level="warning")

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


def _sender(more: list[tuple[int, int, bytes]]) -> int:
    """Return the user id of who sent a datagram, as the kernel says it."""
    for level, kind, data in more:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
            _, uid, _ = _CREDENTIALS.unpack(data[: _CREDENTIALS.size])
            return int(uid)
    raise ValueError("a datagram without a sender")


def _owner(path: Path) -> int | None:
    """Return whose heartbeat file this is: its owner's, or of who sent it if the agent wrote it."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    said = heartbeats.load(path) if found.st_uid == os.geteuid() else None
    uid = said.get("uid") if isinstance(said, dict) else None
    return uid if isinstance(uid, int) else found.st_uid
