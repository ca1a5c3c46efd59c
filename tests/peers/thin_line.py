"""A thin line: each connection dies when so many bytes have gone up it, amid a piece."""

from __future__ import annotations

import contextlib
import socket

from tests.peers.proxy import Proxy, _shut


class ThinLine(Proxy):
    """Stands before a server on loopback. `sent` counts what has gone up, `cuts` what died."""

    def __init__(self, port: int, dies_after: int) -> None:
        super().__init__(port)
        self.dies_after, self.cuts = dies_after, 0

    def _up(self, near: socket.socket, far: socket.socket) -> None:
        left = self.dies_after
        with contextlib.suppress(OSError):
            while block := near.recv(min(left, 4096)):
                far.sendall(block)
                self.sent += len(block)
                left -= len(block)
                if left == 0:
                    self.cuts += 1
                    break
        _shut(near)
        _shut(far)
