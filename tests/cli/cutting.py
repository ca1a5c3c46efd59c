"""A TCP proxy that cuts connections after so many bytes from the client: a thin, broken link."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator


class CuttingProxy:
    """Forwards to a server; each number in `cuts` ends one connection after so many bytes sent.

    When `cuts` is used up, connections live. `sent` counts what clients sent altogether.
    """

    def __init__(self, target: tuple[str, int], cuts: list[int]) -> None:
        self.cuts = cuts
        self.sent = 0
        self.broken = 0
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._relay, args=(client,), daemon=True).start()

    def _relay(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), socket.create_connection(self._target) as server:
            threading.Thread(target=_copy, args=(server, client), daemon=True).start()
            carried = 0
            while data := client.recv(65536):
                self.sent += len(data)
                carried += len(data)
                server.sendall(data)
                if self.cuts and carried > self.cuts[0]:
                    self.cuts.pop(0)
                    self.broken += 1
                    # closing alone would wait for the thread that still reads from the server
                    for end in (server, client):
                        end.shutdown(socket.SHUT_RDWR)
                    break
        client.close()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def cutting_proxy(url: str, cuts: list[int]) -> Iterator[CuttingProxy]:
    host, _, port = url.removeprefix("http://").partition(":")
    proxy = CuttingProxy((host, int(port)), cuts)
    try:
        yield proxy
    finally:
        proxy.close()
