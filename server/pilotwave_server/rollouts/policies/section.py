"""Read one mapping of a policy key by key, noting what is unknown, missing or wrong."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from pilotwave_server.rollouts.policies.faults import Faults, Wrong, show
from pilotwave_server.rollouts.policies.kinds import YEAR, Kind, duration, whole

T = TypeVar("T")
D = TypeVar("D")


class Section:
    """A mapping at a path. A key whose value is null counts as not there.

    A key in `durations` may also come as `<key>_s`, a whole number of seconds, as the server writes
    it.
    """

    def __init__(
        self,
        faults: Faults,
        value: Any,
        path: str,
        *,
        keys: Iterable[str],
        durations: Iterable[str] = (),
    ) -> None:
        self.faults, self.path = faults, path
        self.value: dict[str, Any] = {}
        if not isinstance(value, dict):
            faults.add(path, f"expected a mapping of `key: value`; got {show(value)}")
            return
        known = [*keys, *durations]
        accepted = {*known, *(f"{key}_s" for key in durations)}
        for key, item in value.items():
            if key not in accepted:
                faults.add(self.at(_short(key)), f"unknown key; {_expected(key, known)}")
            elif item is not None:
                self.value[key] = item

    def at(self, key: str) -> str:
        """Return the path of a key."""
        return f"{self.path}.{key}" if self.path else key

    def has(self, key: str) -> bool:
        """Say whether the key is there."""
        return key in self.value

    def take(self, key: str, kind: Kind[T], default: D) -> T | D:
        """Return the key's value, or `default` where it is not there or wrong."""
        if key not in self.value:
            return default
        try:
            return kind(self.value[key])
        except Wrong as wrong:
            self.faults.add(self.at(key), str(wrong))
            return default

    def need(self, key: str, kind: Kind[T], default: T) -> T:
        """Return the key's value; its absence is a fault."""
        if key not in self.value:
            self.faults.add(self.at(key), "expected a value; it is missing")
        return self.take(key, kind, default)

    def duration(self, key: str, default: D, *, low: int = 0, high: int = YEAR) -> int | D:
        """Return a length of time in seconds, given as `<key>: 30m` or as `<key>_s: 1800`."""
        seconds = f"{key}_s"
        if not self.has(seconds):
            return self.take(key, duration(low, high), default)
        if self.has(key):
            self.faults.add(self.at(seconds), f"expected either `{key}` or `{seconds}`, not both")
        return self.take(seconds, whole(low, high), default)

    def items(self, key: str, most: int) -> Iterator[tuple[Any, str]]:
        """Yield each item of a list with its path."""
        value = self.value.get(key, [])
        if not isinstance(value, list):
            self.faults.add(self.at(key), f"expected a list; got {show(value)}")
            return
        if len(value) > most:
            self.faults.add(self.at(key), f"expected at most {most} items; got {len(value)}")
        for index, item in enumerate(value[:most]):
            yield item, f"{self.at(key)}[{index}]"

    def list_of(self, key: str, kind: Kind[T], most: int) -> tuple[T, ...]:
        """Return a list whose items are of one kind; each may be there once."""
        found: list[T] = []
        for item, path in self.items(key, most):
            try:
                read = kind(item)
            except Wrong as wrong:
                self.faults.add(path, str(wrong))
                continue
            if read in found:
                self.faults.add(path, f"expected each once; {show(item)} is there twice")
            found.append(read)
        return tuple(found)


def _short(key: object) -> str:
    text = ascii(key)[1:-1] if isinstance(key, str) else ascii(key)
    return text if len(text) <= 60 else text[:57] + "..."


def _expected(key: object, known: list[str]) -> str:
    near = difflib.get_close_matches(key[:60], known, 1) if isinstance(key, str) else []
    if near:
        return f"did you mean `{near[0]}`?"
    return f"expected one of {', '.join(known)}"
