"""What is wrong with a person's policy: each fault with its path, its line and what was expected.

Faults are gathered, so that a person sees all of them at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import ClassVar

from pydantic import ValidationError
from pydantic_core import InitErrorDetails

from pilotwave_server.errors import Invalid

MOST = 20
Loc = tuple[str | int, ...]
Told = tuple[Loc, str]
# how pydantic names a kind of gate within a place
TAGS = ("<metric>", "<install>", "<paired>")


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


def refused(told: Iterable[Told]) -> ValidationError:
    """Return what a validator raises for several faults, each with its place below the value."""
    faults = [
        InitErrorDetails(type="value_error", loc=loc, input=None, ctx={"error": Wrong(message)})
        for loc, message in told
    ]
    return ValidationError.from_exception_data("policy", faults)


def told_by(error: ValidationError) -> list[Told]:
    """Return each fault's place and sentence. Kinds find all that is wrong but what is missing."""
    return [
        (e["loc"], str(e["ctx"]["error"]) if "ctx" in e else "expected a value; it is missing")
        for e in error.errors(include_url=False)
    ]


def fault_at(loc: Loc, message: str, lines: Mapping[str, int]) -> Fault:
    """Return a fault with its path and line; what is missing has the line of what lacks it."""
    parts = [f"[{one}]" if isinstance(one, int) else f".{one}" for one in loc if one not in TAGS]
    path = there = "".join(parts).removeprefix(".")
    while there and there not in lines:
        there = there[: max(there.rfind("."), there.rfind("["), 0)]
    return Fault(path, lines.get(there), message)


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
