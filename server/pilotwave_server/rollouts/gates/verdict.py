"""What a gate says: a word, its numbers and a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Word(str, Enum):
    """PASS and FAIL are final for the moment they are said; WAIT says what for."""

    PASS = "PASS"
    WAIT = "WAIT"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"

    def __str__(self) -> str:
        return str(self.value)


@dataclass(frozen=True)
class Verdict:
    """One gate's answer. `numbers` are plain JSON values; `slice` names the part it is about."""

    gate: str
    word: Word
    sentence: str
    numbers: Mapping[str, Any] = field(default_factory=dict)
    slice: str | None = None
