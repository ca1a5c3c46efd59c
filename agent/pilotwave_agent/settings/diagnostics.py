"""`[diagnostics]` of the settings file: who may read this device's log from afar."""

from __future__ import annotations

from dataclasses import dataclass

from pilotwave_protocol import names
from pilotwave_protocol.errors import BadName
from pilotwave_protocol.fields import Fields
from pilotwave_protocol.messages.diagnostics import MAX_SEALED_BYTES


@dataclass(frozen=True)
class DiagnosticsSettings:
    """The keys of those who may (64 hex digits each), how large one answer may be, and how many
    there may be a day."""

    readers: tuple[str, ...] = ()
    max_kb: int = MAX_SEALED_BYTES >> 10
    per_day: int = 8


def read_diagnostics(f: Fields) -> DiagnosticsSettings:
    """Read the section, or raise what `f` raises."""
    readers = f.texts("readers", limit=16, length=128, default=[])
    for reader in readers:
        check_reader(f, "readers", reader)
    found = DiagnosticsSettings(
        tuple(readers),
        max_kb=f.integer("max_kb", low=8, high=MAX_SEALED_BYTES >> 10, default=192),
        per_day=f.integer("per_day", low=1, high=1000, default=8),
    )
    f.done()
    return found


def check_reader(f: Fields, key: str, reader: str) -> None:
    """Refuse what is no reader's key."""
    try:
        names.check_sha256(reader)
    except BadName:
        words = "a key of 64 hex digits, as `pilotwave keys reader` prints it"
        raise f.fail(key, words, reader) from None
