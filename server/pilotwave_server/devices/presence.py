"""What the fleet's memory and the push channels know of a device, and the database does not yet.

Both stand above devices, and put their answers into the context when they are installed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class LastPolls:
    """`of(name)` is when a device last polled here, as far as this process remembers."""

    of: Callable[[str], datetime | None]


@dataclass(frozen=True)
class PushChannels:
    """`of(name)` is which channel of a device lives; `unknown` where another process may hold
    one."""

    of: Callable[[str], str | None]
