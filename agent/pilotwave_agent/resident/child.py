"""The resident agent's side of its child: start it, listen to it, end it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_PATIENCE_S = 1.0


def environment() -> dict[str, str]:
    """Return the variables of a child: as here, but what it frees the C library keeps, up to
    16 MiB, as NumPy asks for it again at once."""
    return {"MALLOC_TOP_PAD_": str(16 << 20), **os.environ}


class Child:
    """One running `pilotwave_agent.work`."""

    def __init__(self, config: Path, job: Mapping[str, Any]) -> None:
        """Start it. Raises `OSError` where no process can be had."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pilotwave_agent.work", "--config", str(config)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
        )
        self._pending = b""
        told = json.dumps({**job, "parent": os.getpid()}).encode()
        with contextlib.suppress(BrokenPipeError):
            self._in.write(told)
            self._in.close()
        os.set_blocking(self.fileno(), False)

    @property
    def _in(self) -> Any:
        return self._process.stdin

    def fileno(self) -> int:
        """Return the descriptor that is readable when the child has said something or ended."""
        out: Any = self._process.stdout
        return int(out.fileno())

    def hear(self) -> Iterator[dict[str, Any]]:
        """Yield the lines that have come; the last one of a child that ended is `{"ended": n}`."""
        while True:
            try:
                chunk = os.read(self.fileno(), 1 << 16)
            except BlockingIOError:
                return
            if not chunk:
                yield {"ended": self._process.wait()}
                return
            self._pending += chunk
            *lines, self._pending = self._pending.split(b"\n")
            for line in lines:
                with contextlib.suppress(ValueError):
                    found = json.loads(line)
                    if isinstance(found, dict):
                        yield found

    def end(self) -> None:
        """End it now; what it was doing is done again by the next one."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(_PATIENCE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()
