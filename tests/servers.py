"""Real servers for tests: one in a thread of this process, one as the program itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from pilotwave_server.app import PilotwaveApp
from pilotwave_server.context import Context
from pilotwave_server.serve import proxies
from tests import programs


@dataclass
class RunningServer:
    """A server that answers at `url`; `app` is the ASGI app and `context` the state inside it."""

    url: str
    app: Any
    context: Context


class _Server(uvicorn.Server):
    """Says when it is ready and ends when told to, where uvicorn's own would look now and then."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()
        self.loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        self.stopping = asyncio.Event()
        await super().startup(sockets=sockets)
        self.ready.set()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self.stopping.wait()

    def stop(self) -> None:
        self.should_exit = True
        if self.loop is not None and self.ready.is_set():
            self.loop.call_soon_threadsafe(self.stopping.set)


@contextlib.contextmanager
def run_in_thread(app: Any, *, context: Context | None = None) -> Iterator[RunningServer]:
    """Serve an ASGI app on a free port of 127.0.0.1 for as long as the block lasts."""
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=0,
        http=getattr(app, "connections", "httptools"),
        loop="asyncio",
        ws=getattr(app, "websockets", "none"),
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=5,
        **(proxies(app.context.settings) if isinstance(app, PilotwaveApp) else {}),
    )
    server = _Server(config)
    # With the protocol named, asyncio turns Nagle's algorithm off; else each answer waits 40 ms.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            while not server.ready.wait(0.05):
                if not thread.is_alive():
                    raise RuntimeError("the server did not start; its log says why")
            port = listener.getsockname()[1]
            shared = context or getattr(app, "context", None)
            yield RunningServer(f"http://127.0.0.1:{port}", app, shared)  # type: ignore[arg-type]  # a bare app has none
        finally:
            if hasattr(app, "close"):
                app.close()
            server.stop()
            thread.join(20)


class ServerProcess:
    """The program `pilotwave-server` on one data folder; may be killed and started again."""

    def __init__(self, data: Path, *, settings: dict[str, Any]) -> None:
        self.data = data
        self.url = ""
        self.admin_token = ""
        self.process: programs.Program | None = None
        self.log = data.parent / f"{data.name}.log"
        self.environment = {
            **os.environ,
            **{f"PILOTWAVE_{key.upper()}": str(value) for key, value in settings.items()},
        }

    def init(self, fleet: str) -> None:
        done = programs.run(
            programs.SERVER,
            ["init", "--fleet", fleet, "--json", "--data", self.data],
            environment=self.environment,
            folder=self.data.parent,
        )
        assert done.returncode == 0, done.stderr
        self.admin_token = json.loads(done.stdout).get("admin_token") or self.admin_token

    def command(self, *words: object) -> str:
        """Run another of its commands in the same environment; return what it printed."""
        done = programs.run(
            programs.SERVER, words, environment=self.environment, folder=self.data.parent
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self) -> None:
        """Start the program and wait until it listens. The port stays the same after a restart."""
        port = self.url.rpartition(":")[2] or "0"
        said = self.data.parent / f"{self.data.name}.out"
        said.unlink(missing_ok=True)
        self.process = programs.start(
            programs.SERVER,
            ["run", "--port", port, "--data", self.data],
            environment=self.environment,
            folder=self.data.parent,
            stdout=said,
            stderr=self.log,
        )
        deadline = time.monotonic() + 60
        line = ""
        while not line.endswith("\n") and self.process.is_running():
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)
            line = said.read_text() if said.exists() else ""
        assert line.startswith("listening on "), line + self.log.read_text()
        self.url = line.split()[-1]

    def kill(self) -> None:
        """End it as a power cut would: no chance to tidy up."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """Ask it to end, and return its exit status."""
        return self._end(signal.SIGTERM)

    def _end(self, how: int) -> int:
        if self.process is None:
            return 0
        os.kill(self.process.pid, how)
        status = self.process.end(seconds=30)
        self.process = None
        return status
