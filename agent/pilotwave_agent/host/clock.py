"""The agent's one look at the time, so that tests can let days pass in seconds."""

from __future__ import annotations

import select
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class Clock:
    """The machine's clocks, in seconds."""

    def uptime(self) -> float:
        """Return the time since the machine started, suspended time included."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def wall(self) -> float:
        """Return the time since the epoch, as far as the machine knows it."""
        return time.time()

    def boot(self) -> str:
        """Return what tells this start of the machine from every other."""
        try:
            return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        except OSError:
            return "unknown"

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        time.sleep(seconds)

    def wait(self, readers: Sequence[Any], seconds: float) -> list[Any]:
        """Let time pass until one of these can be read; return those that can."""
        return select.select(readers, [], [], seconds)[0]
