"""Stretches of the new file, each with where its old counterpart lies and what numbers it holds."""

from __future__ import annotations

from dataclasses import dataclass

from pilotwave_protocol.delta.formats import FORMATS, Format


@dataclass(frozen=True)
class Segment:
    """`size` bytes of the new file from `start` on.

    `old` is where the bytes they are like begin in the old file; None if there are none. `number`
    is an index of `FORMATS`; None where the bytes are no numbers, or unknown ones. `hint` is a
    likely size of groups in elements.
    """

    start: int
    size: int
    old: int | None = None
    number: int | None = None
    hint: int = 0
    copy: bool = False

    @property
    def end(self) -> int:
        return self.start + self.size

    @property
    def end_of_old(self) -> int | None:
        return None if self.old is None else self.old + self.size

    def like(self, other: Segment) -> bool:
        """Say whether the other one holds the same kind of numbers in the same rows."""
        return (self.number, self.hint) == (other.number, other.hint)

    @property
    def fmt(self) -> Format | None:
        return None if self.number is None else FORMATS[self.number]

    def cut(self, start: int, end: int) -> Segment:
        """Return the part from `start` to `end` of the new file."""
        old = None if self.old is None else self.old + start - self.start
        return Segment(start, end - start, old, self.number, self.hint, self.copy)
