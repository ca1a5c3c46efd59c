"""The kinds of values in a policy: what a place expects, in words, and what a value means.

`document.py` gives each of its fields a kind.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from enum import Enum
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from pydantic import GetCoreSchemaHandler, ValidationInfo, WrapValidator
from pydantic_core.core_schema import CoreSchema, with_info_before_validator_function

from pilotwave_protocol.durations import read_duration, span
from pilotwave_protocol.errors import BadName
from pilotwave_server.rollouts.policies.faults import Wrong, refused, show
from pilotwave_server.selector import BadSelector
from pilotwave_server.selector import parse as parse_selector

YEAR = 366 * 86_400
DEVICE_ZONE = "device"
_PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,6})?) ?%")
_ITEM = r"(?:[0-9]{1,2}|[A-Z]{3})"
_TERM = rf"(?:\*|{_ITEM}(?:-{_ITEM})?)(?:/[0-9]{{1,2}})?"
_FIELD = rf"{_TERM}(?:,{_TERM})*"
# the part of cron that every implementation reads alike
_CRON = re.compile(rf"{_FIELD}(?: {_FIELD}){{4}}")


@dataclass(frozen=True)
class Kind:
    """`meaning` says what a value means, None if it is not of this kind.

    pydantic asks it where there is a context; what was stored is read without one.
    """

    words: str
    meaning: Callable[[Any], Any]

    def read(self, value: Any) -> Any:
        """Return what the value means, or raise Wrong."""
        found = self.meaning(value)
        if found is None:
            raise Wrong(f"expected {self.words}; got {show(value)}")
        return found

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        def check(value: Any, info: ValidationInfo) -> Any:
            return self.read(value) if info.context else value

        return with_info_before_validator_function(check, handler(source))


@dataclass(frozen=True)
class Written:
    """What a person wrote of a length of time; the server writes whole seconds."""

    value: Any


@dataclass(frozen=True)
class Duration(Kind):
    """A length of time as `30m` or `1h30m`, in seconds."""

    seconds: Kind

    def read(self, value: Any) -> Any:
        if not isinstance(value, Written):
            return self.seconds.read(value)
        return super().read(value.value)


def items(most: int) -> WrapValidator:
    """A list of at most so many; where they are plain values, each once."""

    def check(value: Any, handle: Callable[[Any], Any], info: ValidationInfo) -> Any:
        if not info.context:
            return handle(value)
        if not isinstance(value, list):
            raise Wrong(f"expected a list; got {show(value)}")
        if len(value) > most:
            raise Wrong(f"expected at most {most} items; got {len(value)}")
        found = handle(value)
        for n, one in enumerate(found):
            if isinstance(one, str) and one in found[:n]:
                raise refused([((n,), f"expected each once; {show(one)} is there twice")])
        return found

    return WrapValidator(check)


def duration(low: int = 0, high: int = YEAR) -> Duration:
    def meaning(value: Any) -> int | None:
        seconds = read_duration(value) if isinstance(value, str) else None
        return seconds if seconds is not None and low <= seconds <= high else None

    words = f"a time from {span(low)} to {span(high)}, as `90s`, `30m`, `1h30m` or `2d`"
    return Duration(words, meaning, whole(low, high))


def whole(low: int, high: int) -> Kind:
    return Kind(
        f"a whole number from {low} to {high}",
        lambda value: value if type(value) is int and low <= value <= high else None,
    )


def number(low: float, high: float) -> Kind:
    return Kind(f"a number from {low:g} to {high:g}", lambda value: _within(value, low, high))


def share(low: float, high: float) -> Kind:
    """`5%`, or 0.05."""
    words = f"a share from {low * 100:g}% to {high * 100:g}%, as `5%` or 0.05"
    return Kind(words, lambda value: _within(_percent_text(value, of=100), low, high))


def percent(low: float, high: float) -> Kind:
    """`10%`, or 10."""
    words = f"a percentage from {low:g}% to {high:g}%"
    return Kind(words, lambda value: _within(_percent_text(value), low, high))


def _whole_percent(value: Any) -> int | None:
    found = _within(_percent_text(value), 0, 100)
    return int(found) if found is not None and found.is_integer() else None


def _percent_text(value: Any, of: int = 1) -> Any:
    found = _PERCENT.fullmatch(value) if isinstance(value, str) else None
    return float(found[1]) / of if found else value


def _within(value: Any, low: float, high: float) -> float | None:
    is_number = type(value) is int or (isinstance(value, float) and math.isfinite(value))
    return float(value) if is_number and low <= value <= high else None


def word(*known: str, means: Callable[[str], Any] = str) -> Kind:
    return Kind(
        " or ".join(f"`{one}`" for one in known),
        lambda value: means(value) if isinstance(value, str) and value in known else None,
    )


def member(of: type[Enum]) -> Kind:
    return word(*(one.value for one in of), means=of)


def text(limit: int, *, empty: bool = False) -> Kind:
    def meaning(value: Any) -> str | None:
        good = isinstance(value, str) and len(value) <= limit and value.isprintable()
        return value if good and (empty or value.strip()) else None

    return Kind(f"one line of at most {limit} characters", meaning)


def matching(pattern: str, words: str) -> Kind:
    """Text of a pattern that `words` describe."""
    compiled = re.compile(pattern, re.ASCII)
    return Kind(
        words,
        lambda value: value if isinstance(value, str) and compiled.fullmatch(value) else None,
    )


def named(check: Callable[[Any], object]) -> Kind:
    """What a check takes that has its own words."""

    def meaning(value: Any) -> Any:
        try:
            check(value)
        except (BadName, BadSelector) as error:
            raise Wrong(str(error)) from None
        return value

    return Kind("a name", meaning)


def _cron(value: Any) -> str | None:
    found: str = text(120).read(value)
    if not _CRON.fullmatch(found):
        return None
    try:
        next(CronSim(found, datetime(2024, 1, 1, tzinfo=timezone.utc)))
    except CronSimError as error:
        raise Wrong(f"expected a time of cron, as `0 2 * * *`; {error} in {show(value)}") from None
    except StopIteration:
        raise Wrong(f"expected a time that comes; {show(value)} never does") from None
    return found


def _zone(value: Any) -> str | None:
    found: str = text(64).read(value)
    try:
        if found != DEVICE_ZONE:
            ZoneInfo(found)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None
    return found


ALPHA = share(0.000001, 0.2)
FLAG = Kind("true or false", lambda value: value if isinstance(value, bool) else None)
WHOLE_PERCENT = Kind("a whole percentage from 0% to 100%", _whole_percent)
CRON = Kind("the five fields of cron (minute, hour, day, month, weekday), as `0 2 * * *`", _cron)
ZONE = Kind("`device`, or a zone as `Europe/Berlin`", _zone)
SELECTOR = named(lambda value: parse_selector(text(4096).read(value)))
