"""Say whether a set of devices is the one that somebody was shown, and who joined or left it since.

The digest alone decides. The sketch beside it only names the difference, so that no server process
has to remember what it showed: an invertible Bloom lookup table (Eppstein and others, "What's the
Difference?", SIGCOMM 2011). Who sends another sketch than was given is told nonsense, no more.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from pilotwave_protocol import names as grammar
from pilotwave_protocol.errors import PilotwaveError
from pilotwave_server.devices.service import count_devices
from pilotwave_server.devices.tables import DeviceRow

MOST = 10_000
"""So many devices can be acted on by one request."""
MOST_NAMED = 10
"""So many devices are named of those that joined, and of those that left."""
_PARTS, _IN_PART = 3, 10
_CELLS = _PARTS * _IN_PART
_NAME_BYTES, _CHECK_BYTES, _COUNT_BYTES = 64, 4, 2
_WRAP = 1 << (8 * _COUNT_BYTES)
_CELL_BYTES = _COUNT_BYTES + _CHECK_BYTES + _NAME_BYTES
SKETCH_CHARS = _CELLS * _CELL_BYTES * 4 // 3


@dataclass(frozen=True)
class Shown:
    """What somebody was shown of the devices that a filter takes: how many there are, and unless
    they are more than MOST, their digest and sketch."""

    devices: int | None
    digest: str | None = None
    sketch: str | None = None


def look(session: Session, rules: Sequence[ColumnElement[bool]]) -> Shown:
    """What there is to show of the devices for which all rules hold."""
    devices = count_devices(session, rules)
    if devices > MOST:
        return Shown(devices)
    names = names_of(session, rules, limit=MOST)
    return Shown(len(names), digest(names), sketch(names))


def names_of(
    session: Session, rules: Sequence[ColumnElement[bool]], *, limit: int
) -> Sequence[str]:
    """The names of the devices for which all rules hold, sorted."""
    d = DeviceRow
    return session.scalars(select(d.name).where(*rules).order_by(d.name).limit(limit)).all()


@dataclass(frozen=True)
class Difference:
    """Who is in the set now and was not, and the other way round, by name; at most MOST_NAMED each.
    `whole`: there are no others."""

    joined: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    whole: bool = False

    @property
    def sentence(self) -> str:
        """`cam-9 joined; cam-1, cam-2 left`. Empty where nothing is known."""
        told = [("joined", self.joined), ("left", self.left)]
        said = "; ".join(f"{', '.join(who)} {verb}" for verb, who in told if who)
        return said if self.whole or not said else f"{said}, and others"


def digest(names: Collection[str]) -> str:
    """SHA-256 over the names, sorted by their bytes, each with a line feed behind it."""
    return sha256("".join(f"{name}\n" for name in sorted(names)).encode()).hexdigest()


def sketch(names: Collection[str]) -> str:
    """What `difference` needs to know of a set later: SKETCH_CHARS letters, however large it is."""
    cells = _Cells()
    for name in names:
        cells.add(name, 1)
    return cells.text()


def difference(names: Collection[str], shown: str | None) -> Difference:
    """Compare a set with the one whose sketch was `shown`, as far as they can be told apart."""
    cells = _Cells.read(shown or "")
    if cells is None:
        return Difference()
    for name in names:
        cells.add(name, 1)
    now, joined, left = frozenset(names), set[str](), set[str]()
    for name, sign in cells.peel():
        if (name in now) is (sign > 0):
            (joined if sign > 0 else left).add(name)
    few = len(joined) <= MOST_NAMED and len(left) <= MOST_NAMED
    whole = few and cells.empty
    return Difference(_first(joined), _first(left), whole)


def _first(found: Collection[str]) -> tuple[str, ...]:
    return tuple(sorted(found)[:MOST_NAMED])


class _Cells:
    """Counts and sums (by XOR) of the names that fall into each cell."""

    def __init__(self) -> None:
        self._counts = [0] * _CELLS
        self._sums = [0] * _CELLS

    @classmethod
    def read(cls, text: str) -> _Cells | None:
        """The cells of a sketch, turned round: what is added then stands against it."""
        try:
            raw = base64.b64decode(text.encode(), altchars=b"-_", validate=True)
        except (binascii.Error, UnicodeEncodeError, ValueError):
            return None
        if len(raw) != _CELLS * _CELL_BYTES:
            return None
        cells = cls()
        for n in range(_CELLS):
            cell = raw[n * _CELL_BYTES : (n + 1) * _CELL_BYTES]
            cells._counts[n] = -int.from_bytes(cell[:_COUNT_BYTES], "big")
            cells._sums[n] = int.from_bytes(cell[_COUNT_BYTES:], "big")
        return cells

    def text(self) -> str:
        cells = zip(self._counts, self._sums, strict=True)
        size = _CELL_BYTES - _COUNT_BYTES
        raw = b"".join(
            (count % _WRAP).to_bytes(_COUNT_BYTES, "big") + total.to_bytes(size, "big")
            for count, total in cells
        )
        return base64.urlsafe_b64encode(raw).decode()

    def add(self, name: str, sign: int) -> None:
        value, places = _placed(name)
        for place in places:
            self._counts[place] += sign
            self._sums[place] ^= value

    def peel(self) -> Iterator[tuple[str, int]]:
        """Take out each name that stands alone in a cell, with its sign, until none does."""
        # an honest sketch ends before; a forged one can give the same name back for ever
        for _ in range(_CELLS):
            found = self._alone()
            if found is None:
                return
            self.add(found[0], -found[1])
            yield found

    def _alone(self) -> tuple[str, int] | None:
        for place in range(_CELLS):
            sign = self._sign(place)
            name = _name_of(self._sums[place]) if sign else None
            if name is not None and place in _placed(name)[1]:
                return name, sign
        return None

    def _sign(self, place: int) -> int:
        return {1: 1, _WRAP - 1: -1}.get(self._counts[place] % _WRAP, 0)

    @property
    def empty(self) -> bool:
        return not any(self._sums) and not any(count % _WRAP for count in self._counts)


@lru_cache(maxsize=20_000)
def _placed(name: str) -> tuple[int, tuple[int, ...]]:
    """A name as a number that carries its own check, and the cells that it falls into."""
    plain = name.encode()
    hashed = sha256(plain).digest()
    value = hashed[:_CHECK_BYTES] + plain.ljust(_NAME_BYTES, b"\0")
    places = (
        part * _IN_PART + int.from_bytes(hashed[8 + 4 * part : 12 + 4 * part], "big") % _IN_PART
        for part in range(_PARTS)
    )
    return int.from_bytes(value, "big"), tuple(places)


def _name_of(value: int) -> str | None:
    """The name that a sum is, if it is one alone."""
    raw = value.to_bytes(_CHECK_BYTES + _NAME_BYTES, "big")
    try:
        name = grammar.check_device(raw[_CHECK_BYTES:].rstrip(b"\0").decode())
    except (UnicodeDecodeError, PilotwaveError):
        return None
    return name if _placed(name)[0] == value else None
