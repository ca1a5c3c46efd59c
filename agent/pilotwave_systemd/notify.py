"""Tell systemd how a service is, where systemd asked for it; elsewhere do nothing."""

from __future__ import annotations

import contextlib
import os
import socket
import time


def notify(state: str) -> None:
    """Send one `sd_notify` message, such as `READY=1`."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.setblocking(False)  # whoever does not listen shall not hold us up
        s.connect("\0" + address[1:] if address.startswith("@") else address)
        s.sendall(state.encode())


def interval_s() -> float | None:
    """Return how often systemd wants a sign of life, None if it does not."""
    text = os.environ.get("WATCHDOG_USEC", "")
    return int(text) / 2e6 if text.isdigit() and int(text) > 0 else None


class Watchdog:
    """Gives signs of life as often as systemd wants them, however often it is called."""

    def __init__(self) -> None:
        self._every_s = interval_s()
        self._next = 0.0

    def __call__(self) -> None:
        now = time.monotonic()
        if self._every_s is not None and now >= self._next:
            self._next = now + self._every_s
            notify("WATCHDOG=1")
