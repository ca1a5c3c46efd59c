"""The kinds of values in a policy, each a function from what came to what it means, or `Wrong`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, TypeVar

from pilotwave_protocol.durations import read_duration, span
from pilotwave_protocol.errors import BadName
from pilotwave_server.rollouts.policies.faults import Wrong, show

T = TypeVar("T")
Kind = Callable[[Any], T]

YEAR = 366 * 86_400
_PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,6})?) ?%")


def whole(low: int, high: int) -> Kind[int]:
    """A whole number."""

    def read(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise Wrong(f"expected a whole number from {low} to {high}; got {show(value)}")
        return int(value)

    return read


def number(low: float, high: float) -> Kind[float]:
    """A number."""

    def read(value: Any) -> float:
        if not _is_number(value) or not low <= value <= high:
            raise Wrong(f"expected a number from {low:g} to {high:g}; got {show(value)}")
        return float(value)

    return read


def _is_number(value: Any) -> bool:
    return type(value) is int or (isinstance(value, float) and math.isfinite(value))


def share(low: float, high: float) -> Kind[float]:
    """A share: `5%`, or 0.05."""

    def read(value: Any) -> float:
        found = _percent_text(value)
        part = found / 100 if found is not None else value
        if not _is_number(part) or not low <= part <= high:
            raise Wrong(
                f"expected a share from {low * 100:g}% to {high * 100:g}%, as `5%` or 0.05; "
                f"got {show(value)}"
            )
        return float(part)

    return read


def percent(low: float, high: float) -> Kind[float]:
    """A percentage: `10%`, or 10."""

    def read(value: Any) -> float:
        found = _percent_text(value)
        part = found if found is not None else value
        if not _is_number(part) or not low <= part <= high:
            raise Wrong(f"expected a percentage from {low:g}% to {high:g}%; got {show(value)}")
        return float(part)

    return read


def _percent_text(value: Any) -> float | None:
    found = _PERCENT.fullmatch(value) if isinstance(value, str) else None
    return float(found[1]) if found else None


def whole_percent(value: Any) -> int:
    """A whole percentage from 0 to 100."""
    found = percent(0, 100)(value)
    if found != int(found):
        raise Wrong(f"expected a whole percentage; got {show(value)}")
    return int(found)


def duration(low: int, high: int) -> Kind[int]:
    """A length of time as `30m` or `1h30m`, in seconds."""

    def read(value: Any) -> int:
        seconds = read_duration(value) if isinstance(value, str) else None
        if seconds is not None and low <= seconds <= high:
            return seconds
        raise Wrong(
            f"expected a time from {span(low)} to {span(high)}, as `90s`, `30m`, `1h30m` or `2d`; "
            f"got {show(value)}"
        )

    return read


def flag(value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise Wrong(f"expected true or false; got {show(value)}")
    return value


def word(*known: str) -> Kind[str]:
    """One of these words."""

    def read(value: Any) -> str:
        if not isinstance(value, str) or value not in known:
            raise Wrong(f"expected {' or '.join(f'`{one}`' for one in known)}; got {show(value)}")
        return value

    return read


def text(limit: int, *, empty: bool = False) -> Kind[str]:
    """One line of text."""

    def read(value: Any) -> str:
        good = isinstance(value, str) and len(value) <= limit and value.isprintable()
        if not good or not (empty or value.strip()):
            raise Wrong(f"expected one line of at most {limit} characters; got {show(value)}")
        return str(value)

    return read


def matching(pattern: str, words: str) -> Kind[str]:
    """Text of a pattern that `words` describe."""
    compiled = re.compile(pattern, re.ASCII)

    def read(value: Any) -> str:
        if not isinstance(value, str) or not compiled.fullmatch(value):
            raise Wrong(f"expected {words}; got {show(value)}")
        return value

    return read


def named(check: Callable[[object], str]) -> Kind[str]:
    """A name that one of the protocol's checks takes."""

    def read(value: Any) -> str:
        try:
            return check(value)
        except BadName as error:
            raise Wrong(str(error)) from None

    return read
