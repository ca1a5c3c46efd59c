"""Long modules come first, for each worker, and nothing is lost."""

from __future__ import annotations

import pytest

from tests.order import long_first


@pytest.mark.parametrize("workers", [1, 2, 3, 6])
@pytest.mark.parametrize("sizes", [[5, 5, 5, 5, 5, 5, 5], [40, 1, 1, 1, 1, 1], [1], []])
def test_each_workers_run_begins_with_its_share_of_the_long_modules(
    sizes: list[int], workers: int
) -> None:
    items = [(f"m{n}", k) for n, size in enumerate(sizes) for k in range(size)]
    long = {f"m{n}" for n in range(1, len(sizes), 2)}
    found = long_first(items, workers, module=lambda i: i[0], long=lambda i: i[0] in long)
    assert sorted(found) == sorted(items)
    # whole modules: each long one stands together, its tests in their order
    places = [found.index(item) for item in found if item[0] in long]
    assert len(places) == sum(size for n, size in enumerate(sizes) if f"m{n}" in long)
    for name in long:
        assert [k for m, k in found if m == name] == list(range(sizes[int(name[1:])]))
    if workers == 1 and long:
        assert found[0][0] in long


def test_workers_get_runs_of_one_length_that_begin_with_long_ones() -> None:
    items = [(f"m{n}", k) for n in range(30) for k in range(10)]
    long = {"m27", "m28", "m29"}
    found = long_first(items, 3, module=lambda i: i[0], long=lambda i: i[0] in long)
    assert [found[n][0] for n in (0, 100, 200)] == ["m27", "m28", "m29"]
