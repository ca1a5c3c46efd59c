"""Tell systemd how the server is, where systemd asked for it; elsewhere do nothing."""

from __future__ import annotations

import contextlib
import os
import socket


def notify(state: str) -> None:
    """Send one `sd_notify` message, such as `READY=1`."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.setblocking(False)  # whoever does not listen shall not hold the server up
        s.connect("\0" + address[1:] if address.startswith("@") else address)
        s.sendall(state.encode())
