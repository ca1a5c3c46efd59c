"""A parsed selector. What the operators mean is told in the package's docstring."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from enum import Enum

from pilotwave_protocol.names import FACT

PLAIN_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?", re.ASCII)
MAX_NUMBER_LENGTH = 16  # 15 digits and a point: what a 64-bit float holds exactly, everywhere
BARE_WORD = re.compile(r"[^\s,()=!<>\"'*][^\s,()=!<>\"']*")


class Op(str, Enum):
    """What a condition asks of its key. `=` is IN with one value, `!=` NOT_IN with one."""

    SET = "set"
    UNSET = "unset"
    IN = "in"
    NOT_IN = "notin"
    GT = ">"
    GE = ">="
    LT = "<"
    LE = "<="


ORDER = frozenset({Op.GT, Op.GE, Op.LT, Op.LE})


def plain_number(text: str) -> float | None:
    """Read a plain decimal number of at most 16 characters, or return None."""
    if len(text) <= MAX_NUMBER_LENGTH and PLAIN_NUMBER.fullmatch(text):
        return float(text)
    return None


@dataclass(frozen=True)
class Condition:
    """One condition. SET and UNSET have no values, the comparisons exactly one, a number."""

    key: str
    op: Op
    values: tuple[str, ...] = ()

    @property
    def is_fact(self) -> bool:
        """Whether it asks what the device says of itself."""
        return self.key.startswith(FACT)

    @property
    def name(self) -> str:
        """The key of the label or fact itself."""
        return self.key.removeprefix(FACT)

    @property
    def numbers(self) -> tuple[float, ...]:
        """The values that are plain numbers, as numbers."""
        return tuple(n for v in self.values if (n := plain_number(v)) is not None)

    def __str__(self) -> str:
        if self.op is Op.SET:
            return self.key
        if self.op is Op.UNSET:
            return f"!{self.key}"
        shown = [_quote(v) for v in self.values]
        if self.op in ORDER:
            return f"{self.key}{self.op.value}{shown[0]}"
        if len(shown) == 1:
            return f"{self.key}{'=' if self.op is Op.IN else '!='}{shown[0]}"
        return f"{self.key} {self.op.value} ({', '.join(shown)})"


@dataclass(frozen=True)
class Runs:
    """`runs detector<1.2`: what the device runs of a model, by the order of versions. SET and UNSET
    have no versions, the comparisons exactly one. `at` is where `runs` stands in the text, from 1.
    """

    model: str
    op: Op
    versions: tuple[str, ...] = ()
    at: int = field(default=1, compare=False)

    def __str__(self) -> str:
        if self.op is Op.UNSET:
            return f"!runs {self.model}"
        return f"runs {Condition(self.model, self.op, self.versions)}"


@dataclass(frozen=True)
class Selector:
    """All conditions must hold; no condition at all (`*`) selects every device. `runs` are there
    only where devices are looked for: no group is made by them."""

    conditions: tuple[Condition, ...]
    runs: tuple[Runs, ...] = ()

    @property
    def keys(self) -> frozenset[str]:
        """The label and fact keys on which the answer depends."""
        return frozenset(c.key for c in self.conditions)

    @property
    def of_devices(self) -> Selector:
        """What it asks of labels and facts alone: the part that the compilers take."""
        return replace(self, runs=())

    def __str__(self) -> str:
        return ", ".join(map(str, (*self.conditions, *self.runs))) or "*"


def _quote(value: str) -> str:
    if BARE_WORD.fullmatch(value):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
