"""Lengths of time and `key=value` pairs as people type them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import timedelta

from pilotwave_cli.errors import CliError

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Duration(timedelta):
    """A timedelta that can be read from `90s`, `15m`, `24h`, `30d`, `2w`."""

    @classmethod
    def parse(cls, text: str) -> timedelta:
        """Read a length of time, or raise `CliError`."""
        found = re.fullmatch(r"(\d{1,6})([smhdw])", text.strip())
        if not found or int(found[1]) == 0:
            raise CliError(f"expected a time like 15m, 24h or 30d; got {ascii(text)[:40]}")
        return timedelta(**{_UNITS[found[2]]: int(found[1])})


def pairs(items: Iterable[str], what: str) -> dict[str, str]:
    """Read `key=value` words, or raise `CliError` naming the option."""
    found: dict[str, str] = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise CliError(f"{what}: expected key=value; got {ascii(item)[:60]}")
        found[key] = value
    return found
