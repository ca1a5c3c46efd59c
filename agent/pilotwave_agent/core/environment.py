"""What a device is like at a moment, as far as it decides whether the device may change."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Environment:
    """What the device is like at a moment. None: that cannot be told.

    `power` is `mains` or `battery` (None: a board that has neither, so it is fed from outside),
    `battery` in percent, `busy` a sentence on what keeps the device busy, `zone` its time zone.
    """

    now: float
    power: str | None = None
    battery: int | None = None
    metered: bool | None = None
    disk_free_mb: int | None = None
    busy: str | None = None
    zone: str | None = None
