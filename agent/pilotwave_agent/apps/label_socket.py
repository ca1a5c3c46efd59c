"""A Unix socket where applications in any language have labelled answers kept as examples.

A connection brings one example (`label_message`) and gets one line of JSON: `{"kept": true}`, or
`{"kept": false, "why"}`, which may come before all was sent. It is a stream, as examples are larger
than a datagram may be and the sender wants to know. It is there only where the owner of the device
allows learning. Whoever connects is known by user, holds little memory, and not for long.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import struct
import time
from dataclasses import dataclass, field
from pathlib import Path

from pilotwave_agent.apps import heartbeats
from pilotwave_agent.apps.bind import bind_in
from pilotwave_agent.apps.label_message import MAX_HEAD_BYTES, Labelled, parse_label
from pilotwave_agent.live.labels import LABEL_SOCKET, Labels
from pilotwave_protocol.errors import BadMessage

DEADLINE_S = 10.0
_MOST = 16
_MOST_OF_A_USER = 4
_CREDENTIALS = struct.Struct("=iII")  # process, user, group
_BLOCK = 64 << 10


@dataclass
class _Sender:
    """One connection: what has come, and what it says it is."""

    line: socket.socket
    uid: int
    until: float
    came: bytearray = field(default_factory=bytearray)
    said: Labelled | None = None


class LabelSocket:
    """The socket `live/label.sock` of the resident agent."""

    def __init__(
        self,
        live: Path,
        group: str,
        users: heartbeats.Users | None = None,
        *,
        most_bytes: int,
    ) -> None:
        """Bind it. `users` may speak for their models, `most_bytes` is an example's size at most.
        May raise `OSError`."""
        self._live, self._users, self._most_bytes = live, users or {}, most_bytes
        self._senders: list[_Sender] = []
        self._labels: dict[str, Labels] = {}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        bind_in(live, self._socket, LABEL_SOCKET, group)
        self._socket.listen(_MOST)

    @property
    def reads(self) -> list[socket.socket]:
        """What is readable when there is something to take."""
        return [self._socket, *(sender.line for sender in self._senders)]

    def turn(self) -> None:
        """Take what has come in."""
        now = time.monotonic()
        for sender in list(self._senders):
            why = self._hear(sender)
            if why is None and now >= sender.until:
                why = f"expected the whole example within {DEADLINE_S:.0f} s"
            if why is not None:
                self._answer(sender, why)
        for _ in range(_MOST):
            try:
                line, _ = self._socket.accept()
            except OSError:
                return
            self._greet(line, now)

    def _greet(self, line: socket.socket, now: float) -> None:
        line.setblocking(False)
        raw = line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        sender = _Sender(line, int(_CREDENTIALS.unpack(raw)[1]), now + DEADLINE_S)
        of_user = sum(other.uid == sender.uid for other in self._senders)
        self._senders.append(sender)
        if len(self._senders) > _MOST or of_user >= _MOST_OF_A_USER:
            self._answer(sender, "too many applications send examples now; send it again")
            return
        why = self._hear(sender)
        if why is not None:
            self._answer(sender, why)

    def _hear(self, sender: _Sender) -> str | None:
        """Read on. None: it goes on; nothing: the example is kept; else why it is not."""
        while True:
            why = self._judge(sender)
            if why is not None:
                return why
            try:
                block = sender.line.recv(_BLOCK)
            except BlockingIOError:
                return None
            except ConnectionError:
                block = b""
            if not block:
                return "the connection ended before the example did"
            sender.came += block

    def _judge(self, sender: _Sender) -> str | None:
        came = sender.came
        if sender.said is None:
            end = came.find(b"\n", 0, MAX_HEAD_BYTES + 1)
            if end < 0:
                long = len(came) > MAX_HEAD_BYTES
                return f"expected a first line of at most {MAX_HEAD_BYTES} bytes" if long else None
            try:
                sender.said = parse_label(bytes(came[:end]))
            except BadMessage as e:
                return str(e)
            del came[: end + 1]
            if why := self._refusal(sender.said, sender.uid):
                return why
        due = sender.said.size
        if len(came) > due:
            return f"expected {due} bytes behind the first line; more came"
        return self._keep(sender.said, bytes(came)) if len(came) == due else None

    def _refusal(self, said: Labelled, uid: int) -> str:
        if not heartbeats.heard(uid, self._users.get(said.model)):
            return f"user {uid} may not speak for {said.model}"
        with contextlib.suppress(OSError):
            if stat.S_ISDIR(os.lstat(self._live / said.model).st_mode):
                if said.size <= self._most_bytes:
                    return ""
                return f"expected inputs of at most {self._most_bytes} bytes; got {said.size}"
        return f"there is no model {said.model} on this device"

    def _keep(self, said: Labelled, raw: bytes) -> str:
        labels = self._labels.setdefault(said.model, Labels(self._live / said.model))
        return labels.leave(said.example(raw))

    def _answer(self, sender: _Sender, why: str) -> None:
        told = {"kept": False, "why": why[:400]} if why else {"kept": True}
        with contextlib.suppress(OSError):
            sender.line.send(json.dumps(told).encode() + b"\n", socket.MSG_NOSIGNAL)
        sender.line.close()
        self._senders.remove(sender)

    def close(self) -> None:
        """Close the socket and remove it."""
        for sender in self._senders:
            sender.line.close()
        self._senders.clear()
        self._socket.close()
        with contextlib.suppress(OSError):
            (self._live / LABEL_SOCKET).unlink()
