"""What the agent tells applications in a file of the folder `live`, looked at every few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")
_LOOK_EVERY_S = 5.0


class Told(Generic[T]):
    """One file; `parse` may raise `ValueError`, `TypeError`, `KeyError` or return None."""

    def __init__(self, path: Path, parse: Callable[[bytes], T | None]) -> None:
        self._path, self._parse = path, parse
        self._look_at = 0.0
        self._found: T | None = None

    def current(self) -> T | None:
        """Return what it says now; None where there is no file, or one of a later agent."""
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + _LOOK_EVERY_S
            try:
                self._found = self._parse(self._path.read_bytes())
            except (OSError, ValueError, TypeError, KeyError):
                self._found = None
        return self._found
