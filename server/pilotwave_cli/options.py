"""Let a command group its options in dataclasses, for Typer knows no groups itself."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """Make an option of each field of each dataclass that a command takes, in their order."""
    taken = inspect.signature(command, eval_str=True).parameters.values()
    groups: dict[str, Any] = {p.name: p.annotation for p in taken if is_dataclass(p.annotation)}
    options: list[inspect.Parameter] = []
    for one in taken:
        kind = groups.get(one.name)
        options += inspect.signature(kind, eval_str=True).parameters.values() if kind else [one]
    options = [o.replace(kind=inspect.Parameter.KEYWORD_ONLY) for o in options]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        for name, kind in groups.items():
            given[name] = kind(**{f.name: given.pop(f.name) for f in fields(kind)})
        command(**given)

    run.__annotations__ = {o.name: o.annotation for o in options}
    run.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]  # read by inspect
    return run
