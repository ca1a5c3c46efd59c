"""Import much at once, quickly."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Import without looking for cycles: of what modules make, nothing is garbage, and the looks
    took a fifth of the time until a server answers. What is there is not looked at later, either.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
