"""Read a mapping of a policy into its class, noting what is unknown, missing or wrong.

The class says it all: its fields are the keys, their kinds (`kinds.py`) what is expected, their
defaults what a key that is not there means. What has to fit together is `parse.py`'s.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, get_args, get_type_hints

from pilotwave_server.rollouts.policies.faults import Faults, Wrong, show
from pilotwave_server.rollouts.policies.kinds import Duration, Either, Items, Kind

T = TypeVar("T")


class Section:
    """A mapping at a path: `given` has its keys as they came, `values` the fields that were read.

    A key whose value is null counts as not there.
    """

    def __init__(self, faults: Faults, path: str) -> None:
        self.faults, self.path = faults, path
        self.given: dict[str, Any] = {}
        self.values: dict[str, Any] = {}

    def at(self, key: str) -> str:
        """Return the path of a key, of the mapping itself for ''."""
        return ".".join(filter(None, (self.path, key)))

    def add(self, key: str, message: str) -> None:
        """Note a fault of a key, of the mapping itself for ''."""
        self.faults.add(self.at(key), message)


Rules = Mapping[type, Callable[[Section], None]]


class Reader:
    """Reads values by their kinds. `rules` has what is called when a mapping's fields are read: it
    notes what does not fit together, and sets what follows from other fields."""

    def __init__(self, faults: Faults, rules: Rules) -> None:
        self.faults, self.rules = faults, rules

    def mapping(self, cls: type[T], value: Any, path: str, also: Iterable[str] = ()) -> T:
        """Return the mapping as its class, with None for what is needed and not there.

        Keys of `also` may be there and mean nothing.
        """
        part = Section(self.faults, path)
        if isinstance(value, dict):
            self._fields(part, cls, value, also)
        else:
            part.add("", f"expected a mapping of `key: value`; got {show(value)}")
        return cls(**{**dict.fromkeys(_needed(cls)), **part.values})

    def _fields(
        self, part: Section, cls: type, value: Mapping[Any, Any], also: Iterable[str]
    ) -> None:
        places = _places(cls)
        known = {*places, *(field for field, _ in places.values()), *also}
        for key, item in value.items():
            if key not in known:
                part.add(_short(key), f"unknown key; {_expected(key, [*places, *also])}")
            elif item is not None:
                part.given[key] = item
        for key, (field, kind) in places.items():
            self._field(part, key, field, kind)
        if cls in self.rules:
            self.rules[cls](part)
        for key, (field, _) in places.items():
            there = key in part.given or field in part.given or field in part.values
            if field in _needed(cls) and not there:
                part.add(key, "expected a value; it is missing")

    def _field(self, part: Section, key: str, field: str, kind: Any) -> None:
        if field != key and field in part.given:
            if key in part.given:
                part.add(field, f"expected either `{key}` or `{field}`, not both")
            key, kind = field, kind.seconds
        if key in part.given:
            try:
                part.values[field] = self._value(kind, part.given[key], part.at(key))
            except Wrong as wrong:
                part.add(key, str(wrong))

    def _value(self, kind: Any, value: Any, path: str) -> Any:
        if isinstance(kind, Kind):
            return kind.read(value)
        if isinstance(kind, Items):
            return self._items(kind, value, path)
        if isinstance(kind, Either):
            has = isinstance(value, dict) and value.get(kind.key) is not None
            cls = kind.having if has else kind.lacking
            return self.mapping(cls, value, path, also=() if has else (kind.key,))
        return self.mapping(kind, value, path)

    def _items(self, kind: Items, value: Any, path: str) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise Wrong(f"expected a list; got {show(value)}")
        if len(value) > kind.most:
            self.faults.add(path, f"expected at most {kind.most} items; got {len(value)}")
        found: list[Any] = []
        for index, item in enumerate(value[: kind.most]):
            here = f"{path}[{index}]"
            try:
                read = self._value(kind.of, item, here)
            except Wrong as wrong:
                self.faults.add(here, str(wrong))
                continue
            if isinstance(kind.of, Kind) and read in found:
                self.faults.add(here, f"expected each once; {show(item)} is there twice")
            found.append(read)
        return tuple(found)


@cache
def _places(cls: type) -> dict[str, tuple[str, Any]]:
    """By key, the field that it is read into and its kind. A length of time has the key of its
    field less `_s`; the reader takes the field's name too, with whole seconds."""
    found = {}
    for field, hint in get_type_hints(cls, include_extras=True).items():
        kind = next(
            k for k in (*getattr(hint, "__metadata__", ()), hint, *get_args(hint)) if _is(k)
        )
        found[field.removesuffix("_s") if isinstance(kind, Duration) else field] = (field, kind)
    return found


def _is(kind: Any) -> bool:
    return isinstance(kind, (Kind, Items, Either)) or (
        isinstance(kind, type) and is_dataclass(kind)
    )


def _needed(cls: type) -> list[str]:
    return [f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING]


def _short(key: object) -> str:
    text = ascii(key)[1:-1] if isinstance(key, str) else ascii(key)
    return text if len(text) <= 60 else text[:57] + "..."


def _expected(key: object, known: list[str]) -> str:
    near = difflib.get_close_matches(key[:60], known, 1) if isinstance(key, str) else []
    if near:
        return f"did you mean `{near[0]}`?"
    return f"expected one of {', '.join(known)}"
