"""The short form of `bench/live_swap.py`: under load, no switch costs a call or mixes an answer."""

from __future__ import annotations

from pathlib import Path

from bench import live_swap
from bench._bench import Bench
from pilotwave_agent.live import LiveModel
from tests.peers.shelf import Shelf, X


def test_no_switch_costs_a_call_or_mixes_an_answer(tmp_path: Path) -> None:
    (tmp_path / "live").mkdir()
    shelf = Shelf(tmp_path, live_swap.MODEL)
    shelf.serve(1)
    bench = Bench("live_swap", quick=True)
    with LiveModel(live_swap.MODEL, data=tmp_path, load_timeout_s=1.0, warmup=X) as model:
        live_swap.run(bench, shelf, model, 10, 1)
    figures = bench.figures
    assert figures["calls"] > 100
    assert (figures["failed calls"], figures["answers of no version"]) == (0, 0)
    assert (figures["switches taken"], figures["switches refused"]) == (7, 3)
    assert figures["switches that went otherwise"] == 0
    assert figures["versions that answered"] == 8
