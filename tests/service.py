"""A stand-in for systemd: it starts the agent's launcher, and starts it again when it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from pilotwave_agent.commands.service import own_command, own_launcher

RESTART_S = 0.2


class Service:
    """The service of one device, `Restart=always`. `ended` are the statuses of what has ended."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.log = data.parent / f"{data.name}.service.log"
        self.ended: list[int] = []
        self.process: subprocess.Popen[str] | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def words(self) -> list[str]:
        run = ["--", "run", "--config", str(self.data / "agent.toml")]
        return [*own_launcher(), str(self.data), *own_command(), *run]

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped.is_set():
            with self.log.open("a") as log:
                # a group of its own, as a service has its own control group
                self.process = subprocess.Popen(
                    self.words(), text=True, stderr=log, start_new_session=True
                )
            self.ended.append(self.process.wait())
            self._stopped.wait(RESTART_S)

    def slot(self) -> str:
        """Return which agent runs now, as the launcher told it; empty while none does."""
        with contextlib.suppress(OSError, AttributeError):
            for line in Path(f"/proc/{self.process.pid}/environ").read_bytes().split(b"\0"):  # type: ignore[union-attr]
                if line.startswith(b"PILOTWAVE_SLOT="):
                    return line.partition(b"=")[2].decode()
        return ""

    def kill(self) -> None:
        """End it and all that it started, as a power cut does."""
        with contextlib.suppress(ProcessLookupError, AttributeError):
            os.killpg(self.process.pid, signal.SIGKILL)  # type: ignore[union-attr]

    def stop(self) -> None:
        self._stopped.set()
        ends = time.monotonic() + 10
        while self._thread.is_alive() and time.monotonic() < ends:
            self.kill()
            self._thread.join(0.1)


@contextlib.contextmanager
def service(data: Path) -> Iterator[Service]:
    """Run the service of a device for as long as the block lasts."""
    made = Service(data)
    made.start()
    try:
        yield made
    finally:
        made.stop()
