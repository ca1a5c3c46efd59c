"""Object stores from which this device may fetch files: those that its own settings name.

A server may say where in a store a file lies, so that the bytes need not pass through the server.
It chooses among the hosts that are named; it cannot send the device anywhere else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import urlsplit

DEFAULT_PORTS = {"http": 80, "https": 443}
MAX_URL = 8192
_TARGET = re.compile(r"/[!-~]*", re.ASCII)


def find_host(url: object, hosts: Sequence[str]) -> tuple[str, str] | None:
    """Return which of `hosts` (URLs without a path) a URL is at, and what to ask it for; None where
    it is at none of them."""
    if not isinstance(url, str) or len(url) > MAX_URL or not url.isascii():
        return None
    try:
        found = urlsplit(url)
        place = _place(url)
        target = f"{found.path or '/'}?{found.query}" if found.query else found.path or "/"
        if found.username is not None or found.fragment or not _TARGET.fullmatch(target):
            return None
        return next(((host, target) for host in hosts if _place(host) == place), None)
    except ValueError:
        return None


def _place(url: str) -> tuple[str, str, int]:
    found = urlsplit(url)
    if found.scheme not in DEFAULT_PORTS or not found.hostname:
        raise ValueError(url)
    return found.scheme, found.hostname, found.port or DEFAULT_PORTS[found.scheme]
