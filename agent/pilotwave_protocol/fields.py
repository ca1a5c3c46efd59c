"""Read typed fields out of parsed JSON, with errors that name the field's path.

`Fields(data, path, error)` wraps one JSON object. Each getter takes one key; `done()` refuses the
keys that nobody asked for, so that a misspelt or smuggled field never passes unseen.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any, TypeVar

from pilotwave_protocol.errors import BadName, ProtocolError

T = TypeVar("T")
F = TypeVar("F", bound="Fields")
Scalar = str | int | float | bool
MAX_INT = 2**53 - 1  # what every JSON reader can hold exactly
ROOM = 2**52  # where a count begins anew: half of what a message can hold is left above it
_TIME = "%Y-%m-%dT%H:%M:%SZ"
# much quicker than strptime, and check-ins hold many
_TIME_TEXT = re.compile(r"(\d{4})-(\d{2})-(\d{2})T(\d{2}):(\d{2}):(\d{2})Z", re.ASCII)


def format_time(moment: datetime) -> str:
    """Write an aware moment as `2026-01-31T09:30:00Z`, whole seconds, UTC."""
    # strftime writes years before 1000 with fewer digits than it reads them with
    return moment.astimezone(timezone.utc).strftime(_TIME).rjust(20, "0")


def parse_time(text: str) -> datetime:
    """Read `2026-01-31T09:30:00Z`. Raises `ValueError` for any other form."""
    found = _TIME_TEXT.fullmatch(text)
    if found is None:
        raise ValueError(f"expected a time like 2026-01-31T09:30:00Z; got {ascii(text)[:40]}")
    year, month, day, hour, minute, second = map(int, found.groups())
    return datetime(year, month, day, hour, minute, second, tzinfo=timezone.utc)


def kind_of(value: object) -> str:
    """Name a JSON value's type for an error."""
    names = {dict: "object", list: "list", str: "text", bool: "true/false", type(None): "null"}
    return names.get(type(value), "number")


class Fields:
    """One JSON object being read; each problem is raised as `error` with the field's path."""

    def __init__(self, data: object, path: str, error: type[ProtocolError]) -> None:
        if not isinstance(data, dict):
            raise error(f"{path or 'document'}: expected an object; got {kind_of(data)}")
        self._data: dict[str, Any] = data
        self._path = path
        self._error = error
        self._seen: set[str] = set()

    def at(self, key: str) -> str:
        """Return the path of a key inside the document, for errors."""
        return f"{self._path}.{key}" if self._path else key

    def fail(self, key: str, expected: str, value: object) -> ProtocolError:
        """Make the error for a field that is not what was expected."""
        shown = ascii(value)
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        return self._error(f"{self.at(key)}: expected {expected}; got {shown}")

    def raw(self, key: str, default: Any = ...) -> Any:
        """Return a field as it is; without a default it must be there."""
        self._seen.add(key)
        if key in self._data:
            return self._data[key]
        if default is ...:
            raise self._error(f"{self.at(key)}: expected a value; the field is missing")
        return default

    def text(self, key: str, *, limit: int = 1024, default: Any = ...) -> str:
        """Return text of at most `limit` characters."""
        value = self.raw(key, default)
        # NUL ends a text in C and is no text at all for PostgreSQL
        if not isinstance(value, str) or len(value) > limit or "\0" in value:
            raise self.fail(key, f"text of at most {limit} characters without NUL", value)
        return value

    def opt_text(self, key: str, *, limit: int = 1024) -> str | None:
        """Return text, or None where the field is missing or null."""
        return None if self.raw(key, None) is None else self.text(key, limit=limit)

    def integer(self, key: str, *, low: int = 0, high: int = MAX_INT, default: Any = ...) -> int:
        """Return a whole number between `low` and `high`."""
        value = self.raw(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.fail(key, f"a whole number from {low} to {high}", value)
        return value

    def number(self, key: str, *, low: float, high: float, default: Any = ...) -> float:
        """Return a number between `low` and `high`."""
        value = self.raw(key, default)
        # NaN is between no two numbers
        if type(value) not in (int, float) or not low <= value <= high:
            raise self.fail(key, f"a number from {low:g} to {high:g}", value)
        return float(value)

    def boolean(self, key: str, *, default: Any = ...) -> bool:
        """Return true or false."""
        value = self.raw(key, default)
        if not isinstance(value, bool):
            raise self.fail(key, "true or false", value)
        return value

    def time(self, key: str) -> datetime:
        """Return a moment written as `2026-01-31T09:30:00Z`."""
        value = self.raw(key)
        try:
            return parse_time(value)
        except (ValueError, TypeError) as e:
            raise self.fail(key, "a time like 2026-01-31T09:30:00Z", value) from e

    def opt_time(self, key: str) -> datetime | None:
        """Return a moment, or None where the field is missing or null."""
        return None if self.raw(key, None) is None else self.time(key)

    def named(self, key: str, check: Callable[[object], str]) -> str:
        """Return a name that `check` (one of `names.check_*`) accepts."""
        value = self.raw(key)
        try:
            return check(value)
        except BadName as e:
            raise self._error(f"{self.at(key)}: {e}") from e

    def opt_named(self, key: str, check: Callable[[object], str]) -> str | None:
        """Return a checked name, or None where the field is missing or null."""
        return None if self.raw(key, None) is None else self.named(key, check)

    def one_of(self, key: str, kind: Callable[[Any], T]) -> T:
        """Return the member of an enum that the field names."""
        value = self.raw(key)
        try:
            return kind(value)
        except ValueError as e:
            raise self.fail(key, f"a {getattr(kind, '__name__', 'known word')}", value) from e

    def items(self, key: str, *, limit: int, default: Any = ...) -> list[Any]:
        """Return a list of at most `limit` items."""
        value = self.raw(key, default)
        if not isinstance(value, list) or len(value) > limit:
            raise self.fail(key, f"a list of at most {limit} items", value)
        return value

    def objects(self: F, key: str, *, limit: int, default: Any = ...) -> Iterator[F]:
        """Yield each item of a list of objects, ready to be read."""
        for number, item in enumerate(self.items(key, limit=limit, default=default)):
            yield type(self)(item, f"{self.at(key)}[{number}]", self._error)

    def texts(self, key: str, *, limit: int, length: int = 256, default: Any = ...) -> list[str]:
        """Return a list of texts."""
        values = self.items(key, limit=limit, default=default)
        for value in values:
            if not isinstance(value, str) or len(value) > length or "\0" in value:
                raise self.fail(key, f"texts of at most {length} characters", value)
        return values

    def inner(self: F, key: str, *, default: Any = ...) -> F:
        """Return a nested object, ready to be read."""
        return type(self)(self.raw(key, default), self.at(key), self._error)

    def opt_inner(self: F, key: str) -> F | None:
        """Return a nested object, or None where the field is missing or null."""
        return None if self.raw(key, None) is None else self.inner(key)

    def mapping(self, key: str, *, limit: int, default: Any = ...) -> dict[str, Any]:
        """Return an object with at most `limit` keys, its values unread."""
        value = self.raw(key, default)
        if not isinstance(value, dict) or len(value) > limit:
            raise self.fail(key, f"an object of at most {limit} keys", value)
        return value

    def text_map(self, key: str, *, limit: int = 32, length: int = 512) -> dict[str, str]:
        """Return an object of texts; missing is empty."""
        found = self.mapping(key, limit=limit, default={})
        for name, value in found.items():
            if len(name) > 64 or not isinstance(value, str) or len(value) > length or "\0" in value:
                raise self.fail(key, f"texts of at most {length} characters", value)
        return found

    def done(self) -> None:
        """Refuse the keys that nobody asked for."""
        unknown = sorted(set(self._data) - self._seen)
        if unknown:
            shown = ascii(unknown[0])[:60]
            raise self._error(f"{self._path or 'document'}: unknown field {shown}")
