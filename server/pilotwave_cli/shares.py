"""Read shares as people type them: `1%` or `0.01`."""

from __future__ import annotations

from pilotwave_cli.errors import CliError


def read_share(option: str, text: str, *, whole: bool = False) -> float:
    """Return a share above 0 and below 1, or, where the `whole` is one, 1. Raises `CliError`."""
    number, percent, rest = text.partition("%")
    try:
        share = float(number) / (100 if percent else 1)
    except ValueError:
        share = -1.0
    if rest or not (0 < share < 1 or (whole and share == 1)):
        raise CliError(f"{option}: expected a share such as 1% or 0.01; got {text[:40]}")
    return share
