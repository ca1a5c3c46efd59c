"""A real server in a process of its own, which can be killed and started dozens of times."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import uvicorn

from pilotwave_server.app import create_app
from pilotwave_server.settings import Settings
from tests.forking import Forker, forker


def _serve(data_dir: Path, url: str, port: int) -> None:
    settings = Settings(data_dir=data_dir, database_url=url)
    uvicorn.run(create_app(settings), host="127.0.0.1", port=port, log_level="error")


class KilledServer:
    """A server on a port that stays the same."""

    def __init__(self, forker: Forker, settings: Settings) -> None:
        self.data_dir = settings.data_dir
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._database_url = settings.resolved_database_url
        self._forker = forker
        self._pid = 0

    def start(self) -> None:
        """Start it, and wait until it listens."""
        self._pid = self._forker.fork(_serve, self.data_dir, self._database_url, self.port)
        end = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            assert time.monotonic() < end
            time.sleep(0.01)

    def kill(self) -> None:
        """End it with SIGKILL."""
        self._forker.kill(self._pid)


@contextlib.contextmanager
def killed_server(settings: Settings) -> Iterator[KilledServer]:
    """Start a server to be killed."""
    with forker("pilotwave_server.app", "uvicorn", "tests.server.killed") as forks:
        server = KilledServer(forks, settings)
        server.start()
        yield server
