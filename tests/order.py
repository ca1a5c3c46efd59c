"""Put the modules with long tests first, a share of them for each worker.

pytest-xdist (`worksteal`) gives each worker an equal run of the list, and takes from the end of
such a run for who has nothing left. What is long and stands near an end is begun last, and one core
waits for it. Modules stay whole: their fixtures are servers and browsers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, islice
from typing import TypeVar

import pytest

USUAL_S = 120
T = TypeVar("T")


def is_long(item: pytest.Item) -> bool:
    """Say whether the item was given more than the usual time."""
    marker = item.get_closest_marker("timeout")
    return marker is not None and bool(marker.args) and marker.args[0] > USUAL_S


def long_first(
    items: Sequence[T], workers: int, *, module: Callable[[T], str], long: Callable[[T], bool]
) -> list[T]:
    """Return the items in an order of which each worker's run begins with long modules."""
    modules = [list(found) for _, found in groupby(items, key=module)]
    first = [found for found in modules if any(map(long, found))]
    rest = iter([item for found in modules if not any(map(long, found)) for item in found])
    return [item for n in range(workers) for item in _run(n, workers, len(items), first, rest)]


def _run(n: int, workers: int, total: int, first: list[list[T]], rest: Iterator[T]) -> list[T]:
    size = total // workers + (n >= workers - total % workers)
    mine = [item for found in first[n::workers] for item in found]
    if n + 1 == workers:
        return [*mine, *rest]
    return [*mine, *islice(rest, max(0, size - len(mine)))]
