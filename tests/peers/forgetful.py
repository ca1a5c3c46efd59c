"""A path that forgets idle connections, as a NAT does, and drops what comes later, untold."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time


class ForgetfulPath:
    """Stands before a server on loopback; forgets what was idle for `idle_s` seconds."""

    def __init__(self, port: int, idle_s: float) -> None:
        self.port, self.idle_s = port, idle_s
        self.opened = self.forgotten = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self.opened += 1
            threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        with near, socket.create_connection(("127.0.0.1", self.port)) as far:
            last = time.monotonic()
            while time.monotonic() - last <= self.idle_s:
                for end in select.select([near, far], [], [], 0.02)[0]:
                    with contextlib.suppress(OSError):
                        data = end.recv(1 << 16)
                        if not data:
                            return
                        (far if end is near else near).sendall(data)
                        last = time.monotonic()
            self.forgotten += 1
            with contextlib.suppress(OSError):
                while near.recv(1 << 16):  # neither end is told
                    pass
