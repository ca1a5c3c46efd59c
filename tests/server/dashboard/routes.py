"""Every route of the server, as its app has them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def all_routes(fastapi: Any) -> Iterator[tuple[str, str]]:
    """(method, path template) of each route that a slice or a page made."""
    for route in fastapi.routes:
        router = getattr(route, "original_router", None)
        for inner in router.routes if router is not None else []:
            for method in sorted(inner.methods):
                yield method, inner.path
