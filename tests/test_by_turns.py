"""Of twins that differ by the kind of database one is kept, and of all others everything."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tests import by_turns


def item(name: str, **params: Any) -> Any:
    words = "-".join(map(str, params.values()))
    return SimpleNamespace(
        nodeid=f"{name}[{words}]" if words else name, callspec=SimpleNamespace(params=params)
    )


def test_one_of_each_pair_is_kept_and_both_kinds_have_their_turn() -> None:
    pairs = [
        [item(f"a.py::test_{n}", more=m, database_kind=kind) for kind in ("sqlite", "postgresql")]
        for n in range(40)
        for m in (1, 2)
    ]
    left_out = by_turns.others([one for pair in pairs for one in pair])
    kept = [[one for one in pair if one not in left_out] for pair in pairs]
    assert [len(pair) for pair in kept] == [1] * 80
    kinds = [pair[0].callspec.params["database_kind"] for pair in kept]
    assert 20 < kinds.count("sqlite") < 60
    assert left_out == by_turns.others([one for pair in reversed(pairs) for one in pair])[::-1]


def test_what_has_no_twin_is_kept() -> None:
    alone = [
        item("a.py::test_x"),
        item("a.py::test_y", database_kind="sqlite"),
        item("a.py::test_sqlite", database_kind="sqlite"),
        item("a.py::test_z", kind="postgresql"),
        SimpleNamespace(nodeid="a.py::test_w"),
    ]
    assert by_turns.others(alone) == []  # type: ignore[arg-type]
