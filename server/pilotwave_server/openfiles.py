"""How many files the process may have open: each connection is one.

The soft limit is often 1024 for the sake of programs of long ago; the hard one is what the system
really allows. A part stays free for the database, blobs and logs.
"""

from __future__ import annotations

import contextlib
import sys

RESERVED = 512
ENOUGH = 4096
MOST = 1 << 20


def limit() -> int:
    """How many files may be open now."""
    if sys.platform == "win32":
        return ENOUGH
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST if soft == resource.RLIM_INFINITY else min(soft, MOST)


def reachable() -> int:
    """How many may be open once the limit is raised."""
    if sys.platform == "win32":
        return ENOUGH
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)


def raise_limit() -> int:
    """Raise the limit as far as the system lets this process. Returns it."""
    if sys.platform != "win32":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (reachable(), hard))
    return limit()


def for_connections(files: int) -> int:
    """How many of so many files may be connections."""
    return max(files - min(RESERVED, files // 4), 1)


def for_push(files: int) -> int:
    """How many of them may be held for long: a quarter is kept for requests."""
    return for_connections(files) * 3 // 4


def shortage(files: int, *, push_connections: int) -> str | None:
    """What an operator should know of the limit, or None where it is enough for all settings."""
    how = "raise it (systemd: LimitNOFILE=, Docker: --ulimit nofile=)"
    if files < ENOUGH:
        return f"expected a limit of at least {ENOUGH} open files; got {files}: {how}"
    if for_push(files) < push_connections:
        return (
            f"with {files} open files a server process holds {for_push(files)} WebSockets, where "
            f"push_connections allows {push_connections}: {how}"
        )
    return None
