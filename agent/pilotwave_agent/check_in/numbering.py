"""The numbers of check-ins, and the random names under which a device counts.

A count goes on for ever under its name. Where it cannot (its file was lost, another machine has a
copy of it, it was driven to where no room is left), the device takes a new name and the server
begins anew with it: no number is so high that it cannot be left behind, and no answer, which nobody
signs, has to be believed.
"""

from __future__ import annotations

import contextlib
import secrets
from dataclasses import dataclass
from pathlib import Path

from pilotwave_agent.host.disk import Disk
from pilotwave_protocol import strictjson
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.errors import ProtocolError
from pilotwave_protocol.fields import ROOM

_BLOCK = 256
_MAX_BYTES = 16 << 10
# how far an older server, which knows of no names, may move a number at one time, and at all
_JUMP = 2**24
_HIGHEST_JUMP = 2**40


def new_name() -> str:
    """Return a random name."""
    return secrets.token_hex(8)


def name_of(*names: str) -> str:
    """Return the name under which several counts are sent together: another as soon as one is."""
    return sha256_hex(" ".join(names).encode())[:32]


def may_jump(number: int, to: int) -> bool:
    """Say whether the word of an older server may move a number that far."""
    return 0 <= to <= min(number + _JUMP, _HIGHEST_JUMP)


@dataclass(frozen=True)
class _Kept:
    reserved: int = 0
    name: str = ""
    named: bool = False


class Sequence:
    """The numbers of check-ins: each one is used once, across restarts and power cuts.

    Numbers are reserved on disk in blocks, so that most check-ins write nothing. `named` says
    whether the server reads names; the last answer told.
    """

    def __init__(self, disk: Disk, path: Path) -> None:
        self._disk, self._path = disk, path
        kept = _read(path)
        self.name, self.named = kept.name or new_name(), kept.named
        self._written = bool(kept.name)
        self._next = self._reserved = kept.reserved
        self._begun = self._next

    def take(self) -> int:
        """Return the next number."""
        if self._next >= ROOM:
            self.begin_anew()
        self._next += 1
        if self._next > self._reserved or not self._written:
            self._reserve(self._next + _BLOCK)
        return self._next

    def has_used(self, number: int) -> bool:
        """Say whether this process took `number`, or a higher one, under the present name."""
        return self._begun < number <= self._next

    def begin_anew(self) -> None:
        """Take another name. Numbers go on rising while there is room for them."""
        self.name, self._written = new_name(), False
        if self._next >= ROOM:
            self._next = self._reserved = 0
        self._begun = self._next

    def note(self, *, named: bool) -> None:
        """Remember whether the server reads names."""
        if named != self.named:
            self.named = named
            self._reserve(max(self._reserved, self._next))

    def jump(self, last: int) -> None:
        """Go on above `last`, as an older server asks, but not further than `may_jump` allows."""
        self._next = max(self._next, min(last, self._next + _JUMP, _HIGHEST_JUMP))

    def _reserve(self, end: int) -> None:
        # a disk that says no is what most needs to be reported: a number that is used again after
        # a restart is refused as stale, and the device goes on under another name
        plain = {"reserved": end, "name": self.name, "named": self.named}
        with contextlib.suppress(OSError):
            self._disk.write_atomic(self._path, strictjson.dumps(plain))
        self._reserved, self._written = end, True


def _read(path: Path) -> _Kept:
    """A file that is lost, damaged or out of room starts anew, under another name."""
    try:
        found = strictjson.loads(path.read_bytes(), max_bytes=_MAX_BYTES)
        reserved, name = found["reserved"], found.get("name", "")
    except (OSError, ProtocolError, KeyError, TypeError, AttributeError):
        return _Kept()
    if type(reserved) is not int or not 0 < reserved < ROOM or not isinstance(name, str):
        return _Kept()
    return _Kept(reserved, name[:64], found.get("named") is True)
