"""One model on a virtual device, and how two orders of it are compared."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from pilotwave_protocol.messages.check_in import ModelReport
from pilotwave_protocol.messages.directive import Entry
from pilotwave_protocol.shadow import SHADOW


@dataclass
class Model:
    """One model on the device."""

    report: ModelReport
    order: Entry | None = None
    failed: set[tuple[str, str, int]] = field(default_factory=set)
    work: asyncio.Task[None] | None = None
    compared: tuple[str, str] | None = None  # of which manifest, for which class
    shadow: bool = False  # its order only tries the version


def build_of(entry: Entry) -> tuple[str, str]:
    return entry.sha256, entry.variant


def try_of(entry: Entry) -> tuple[str, str, int]:
    """What an order asks a device to try; it does not try the same again."""
    return *build_of(entry), entry.attempt


def wish_of(entry: Entry) -> tuple[tuple[str, str, int], bool]:
    return try_of(entry), SHADOW in entry.conditions
