"""A flaky line: a TCP proxy that drops, stalls, truncates, corrupts, duplicates and throttles.

Each connection gets a `Fault`, which strikes when so many bytes have come down it. A fault of
nothing is an honest line.
"""

from __future__ import annotations

import contextlib
import fcntl
import random
import socket
import struct
import termios
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

KINDS = ("drop", "truncate", "stall", "corrupt", "duplicate", "throttle")
_PIECE = 4096
_LINGER_AWAY = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one connection, `after` so many bytes from the server; `rate` is in
    bytes per second, `stall_s` in seconds."""

    kind: str = ""
    after: int = 0
    rate: int = 0
    stall_s: float = 1.0


Plan = Callable[[], Fault]


def honest() -> Fault:
    """Let a connection be."""
    return Fault()


def at_random(chance: random.Random, share: float, kinds: tuple[str, ...] = KINDS) -> Plan:
    """Return a plan that spoils a share of the connections, somewhere in their first bytes."""

    def plan() -> Fault:
        if chance.random() >= share:
            return Fault()
        after = int(chance.choice((0, 200, 900, 3000, 20_000)) * chance.random())
        return Fault(chance.choice(kinds), after, rate=20_000, stall_s=0.4)

    return plan


class Proxy:
    """Stands before a server on loopback. `down` refuses everyone; `plan` says what goes wrong."""

    def __init__(self, port: int, plan: Plan = honest) -> None:
        self.port, self.plan, self.down = port, plan, False
        self.struck: Counter[str] = Counter()
        self.delivered = self.sent = 0  # bytes from the server, and to it
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        """Be gone, with all connections."""
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Break all connections that are open now."""
        for end in list(self._open):
            _shut(end)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        with near:
            if self.down:
                self.struck["down"] += 1
                return
            try:
                far = socket.create_connection(("127.0.0.1", self.port))
            except OSError:
                return
            with far:
                self._open |= {near, far}
                up = threading.Thread(target=self._up, args=(near, far), daemon=True)
                up.start()
                with contextlib.suppress(OSError):
                    self._down(far, near, self.plan())
                _shut(near)
                _shut(far)
                up.join()
                self._open -= {near, far}

    def _up(self, near: socket.socket, far: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while block := near.recv(_PIECE):
                far.sendall(block)
                self.sent += len(block)
        _shut(far)

    def _down(self, far: socket.socket, near: socket.socket, fault: Fault) -> None:
        passed = 0
        while block := far.recv(_PIECE):
            if fault.kind and passed + len(block) > fault.after:
                at = max(fault.after - passed, 0)
                self._hand_on(near, block[:at])
                block = self._strike(near, block[at:], fault)
                if block is None:
                    return
                if fault.kind != "throttle":
                    fault = Fault()
            passed += len(block)
            self._hand_on(near, block)

    def _hand_on(self, near: socket.socket, block: bytes) -> None:
        near.sendall(block)
        self.delivered += len(block)

    def _strike(self, near: socket.socket, block: bytes, fault: Fault) -> bytes | None:
        """Return what is handed on instead of `block`; None if the connection ends here."""
        self.struck[fault.kind] += 1
        if fault.kind == "drop":
            _drain(near)  # closing so throws away what was counted as delivered and is not yet
            near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_AWAY)
            near.close()
            return None
        if fault.kind == "truncate":
            return None
        if fault.kind == "stall":
            time.sleep(fault.stall_s)
            return None
        if fault.kind == "corrupt":
            return bytes([block[0] ^ 1]) + block[1:]
        if fault.kind == "duplicate":
            return block + block
        for start in range(0, len(block), 256):
            piece = block[start : start + 256]
            self._hand_on(near, piece)
            time.sleep(len(piece) / fault.rate)
        return b""


def _drain(end: socket.socket, patience_s: float = 5.0) -> None:
    """Wait until the other end's system has all that was sent to it."""
    until = time.monotonic() + patience_s
    while time.monotonic() < until:
        left = fcntl.ioctl(end, termios.TIOCOUTQ, bytes(4))
        if not struct.unpack("i", left)[0]:
            return
        time.sleep(0.005)


def _shut(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
