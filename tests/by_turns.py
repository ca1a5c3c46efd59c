"""Leave out half of the tests that run on both kinds of database: each keeps one kind, by turns.

Which kind is taken from the test's name alone, so that a test that failed runs on the same one when
it runs again.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

import pytest

KIND = "database_kind"


def others(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """Return the items to leave out, of those that differ by the kind of database alone."""
    twins: dict[str, list[pytest.Item]] = {}
    for item in items:
        kind = _kind(item)
        if kind:
            name, _, parameters = item.nodeid.partition("[")
            twins.setdefault(name + parameters.replace(kind, "", 1), []).append(item)
    return [
        item
        for name, found in twins.items()
        for n, item in enumerate(sorted(found, key=_kind))
        if n != zlib.crc32(name.encode()) % len(found)
    ]


def _kind(item: pytest.Item) -> str:
    callspec = getattr(item, "callspec", None)
    return str(callspec.params.get(KIND, "")) if callspec else ""
