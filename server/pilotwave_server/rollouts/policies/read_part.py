"""A mapping of a policy that pydantic reads into its class, noting all faults at once.

The class says it all: its fields are the keys, their kinds (`kinds.py`) what is expected, their
defaults what a key that is not there means, its `rules` what has to fit together.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from typing import Any, ClassVar

from pydantic import GetCoreSchemaHandler, ValidationError, ValidationInfo
from pydantic_core.core_schema import CoreSchema, with_info_wrap_validator_function

from pilotwave_server.rollouts.policies.faults import Told, Wrong, refused, show, told_by
from pilotwave_server.rollouts.policies.kinds import Written


class PolicyPart:
    """A key whose value is null counts as not there. Keys of `also` may be there, if null."""

    also: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def rules(cls, given: dict[str, Any]) -> Iterator[Told]:
        """Yield what does not fit together in what was given; set what follows from other keys."""
        yield from ()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return with_info_wrap_validator_function(cls._read, handler(source))

    @classmethod
    def _read(cls, value: Any, handle: Callable[[Any], Any], info: ValidationInfo) -> Any:
        if not info.context or isinstance(value, cls):
            return handle(value)
        if not isinstance(value, dict):
            raise Wrong(f"expected a mapping of `key: value`; got {show(value)}")
        keys = {f.name.removesuffix("_s"): f.name for f in fields(cls)}  # type: ignore[arg-type]
        known = [*keys, *cls.also]
        told: list[Told] = [
            ((_short(key),), f"unknown key; {_expected(key, known)}")
            for key in value
            if key not in {*known, *keys.values()}
        ]
        given = {k: one for k, one in value.items() if one is not None}
        misfits = list(cls.rules(given))
        for key, name in keys.items():
            if key != name and key in given and name in given:
                told.append(((name,), f"expected either `{key}` or `{name}`, not both"))
            elif key != name and key in given:
                given[name] = Written(given[key])
        found = None
        try:
            found = handle({name: given[name] for name in keys.values() if name in given})
        except ValidationError as error:
            wrote = {name: key for key, name in keys.items() if name not in value}
            told += [((wrote.get(str(loc[0]), loc[0]), *loc[1:]), no) for loc, no in told_by(error)]
        if told or misfits:
            raise refused([*told, *misfits])
        return found


def twice(given: Mapping[str, Any], key: str, name: Callable[[Any], Any]) -> Iterator[Told]:
    """Yield each mapping of a list that has the name of one before."""
    names = [name(one) if isinstance(one, dict) else None for one in listed(given, key)]
    for n, one in enumerate(names):
        if one and one in names[:n]:
            yield (key, n, "name"), f"expected names that differ; `{one}` is there twice"


def listed(given: Mapping[str, Any], key: str) -> list[Any]:
    """Return what was given as a list, an empty one for anything else."""
    return given[key] if isinstance(given.get(key), list) else []


def one_of(given: list[str], *keys: str) -> Iterator[Told]:
    """Yield a fault unless exactly one of the keys is given."""
    if len(given) != 1:
        came = " and ".join(given) or "none"
        yield (), f"expected exactly one of {', '.join(keys)}; got {came}"


def _short(key: object) -> str:
    text = ascii(key)[1:-1] if isinstance(key, str) else ascii(key)
    return text if len(text) <= 60 else text[:57] + "..."


def _expected(key: object, known: list[str]) -> str:
    near = difflib.get_close_matches(key[:60], known, 1) if isinstance(key, str) else []
    return f"did you mean `{near[0]}`?" if near else f"expected one of {', '.join(known)}"
