"""Lengths of time and `key=value` pairs as people type them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from pilotwave_cli.errors import CliError
from pilotwave_protocol.durations import read_duration


class Duration(timedelta):
    """A timedelta that can be read from `90s`, `15m`, `1h30m`, `30d`, `2w`."""

    @classmethod
    def parse(cls, text: str) -> timedelta:
        """Read a length of time, or raise `CliError`."""
        seconds = read_duration(text.strip())
        if not seconds:
            raise CliError(f"expected a time like 15m, 24h or 30d; got {ascii(text)[:40]}")
        return timedelta(seconds=seconds)


def pairs(items: Iterable[str], what: str, form: str = "key=value") -> dict[str, str]:
    """Read `key=value` words, or raise `CliError` naming the option and the form it takes."""
    found: dict[str, str] = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise CliError(f"{what}: expected {form}; got {ascii(item)[:60]}")
        found[key] = value
    return found
