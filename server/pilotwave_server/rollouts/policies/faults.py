"""What is wrong with a person's policy: each fault with its path, its line and what was expected.

Faults are gathered, so that a person sees all of them at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import ClassVar

from pilotwave_server.errors import Invalid

MOST = 20


@dataclass(frozen=True)
class Fault:
    """`path` as `waves[1].gates[0].alpha`, empty for the whole; `line` from 1, None for JSON."""

    path: str
    line: int | None
    message: str

    def __str__(self) -> str:
        where = f"line {self.line}, " if self.line is not None else ""
        return f"{where}{self.path or 'the policy'}: {self.message}"


class PolicyInvalid(Invalid):
    """A policy that does not follow the grammar. `errors` lists path, line and message."""

    code: ClassVar[str] = "policy_invalid"

    def __init__(self, faults: list[Fault]) -> None:
        self.faults = faults[:MOST]
        more = len(faults) - 1
        others = f" (and {more} more)" if more > 0 else ""
        super().__init__(f"{faults[0]}{others}", errors=[asdict(fault) for fault in self.faults])


class Wrong(ValueError):
    """A value is not what its place wants; the sentence says what was expected and what came."""


class Faults:
    """Gathers faults. `lines` gives the line of each path that is there."""

    def __init__(self, lines: Mapping[str, int] | None = None) -> None:
        self.lines = {} if lines is None else lines
        self.found: list[Fault] = []

    def add(self, path: str, message: str) -> None:
        """Note a fault. What is missing is told at the line of what it is missing from."""
        self.found.append(Fault(path, self._line(path), message))

    def _line(self, path: str) -> int | None:
        while path and path not in self.lines:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self.lines.get(path)

    def check(self) -> None:
        """PolicyInvalid if anything was noted."""
        if self.found:
            raise PolicyInvalid(self.found)


def show(value: object) -> str:
    """Name a value that came, on one line and short."""
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."
