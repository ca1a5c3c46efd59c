"""Calls on which a candidate and the version that serves disagree, captured where the owner wants
them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pilotwave_agent.live import LiveModel
from pilotwave_protocol import shadow
from tests.agent.live.test_capture import files, open_case, tell, until_still
from tests.agent.live.test_shadow import (
    RELATIVE,
    calls_until,
    count,
    hurried,
    measured,
    odd,
    shelf,
)
from tests.peers.shelf import NAN, RAISES, Shelf, X

__all__ = ["hurried", "shelf"]

WANTED: dict[str, Any] = {"reasons": ("shadow_disagreement",)}


def disagreeing(shelf: Shelf, *, share: float = 1.0) -> None:
    """Try a version whose answer is never within 1 % of the one that serves."""
    version = shelf.add(2)
    about = shelf.layout.about("detector", version)
    about.write_text(json.dumps({**json.loads(about.read_text()), "compare": RELATIVE}))
    shelf.shadow(version, share=share)


def answers(path: Path) -> tuple[set[float], set[float]]:
    """Return the numbers of the version that served and of the candidate."""
    tensors = open_case(path)[1]
    ours, theirs = (set(tensors[f"output.{n}"].ravel().tolist()) for n in ("y", "candidate.y"))
    return ours, theirs


def test_a_disagreement_is_captured_with_the_inputs_of_the_call_and_both_answers(
    shelf: Shelf, opened: Callable[..., LiveModel]
) -> None:
    tell(shelf, **WANTED)
    model = opened()
    disagreeing(shelf)
    buffer = np.empty((1, 4), np.float32)
    ends = time.monotonic() + 60
    while len(files(shelf)) < 5:
        buffer[:] = 7.0
        answer = model.run({"x": buffer})
        answer["y"][:] = buffer[:] = -1.0  # the application goes on with its arrays
        time.sleep(0.005)
        assert time.monotonic() < ends
    model.close()
    for path in files(shelf):
        case, tensors = open_case(path)
        assert (case.reason, case.model, case.version) == (
            "shadow_disagreement",
            "detector",
            "1.1.0",
        )
        assert tensors["input.x"].tolist() == [[7.0] * 4]
        assert answers(path) == ({1.0}, {2.0})
    in_the_open = np.full(4, 7.0, np.float32).tobytes()
    written = [p for p in shelf.data.rglob("*") if p.is_file() and "versions" not in p.parts]
    assert not [p for p in written if in_the_open in p.read_bytes()]


def test_agreement_and_a_candidate_without_an_answer_are_no_cases(
    shelf: Shelf, opened: Callable[..., LiveModel]
) -> None:
    tell(shelf, **WANTED)
    model = opened()
    shelf.shadow(shelf.add(2, "odd"))  # of the same class, whatever the numbers are
    calls_until(model, lambda: count(shelf, "1.2.0", shadow.DISAGREE) >= 5)

    def failed() -> bool:
        found = measured(shelf, "1.2.0").get(shadow.ERROR)
        return bool(found and found.max == 1)

    calls_until(model, failed, odd(RAISES, 9))
    assert files(shelf) == []
    calls_until(model, lambda: files(shelf), odd(NAN, -1))
    model.close()
    for path in files(shelf):
        assert open_case(path)[1]["input.x"][0, NAN] == -1


@pytest.mark.parametrize("reasons", [None, ("low_score", "overruled")])
def test_without_a_word_of_the_owner_no_disagreement_is_captured(
    shelf: Shelf, opened: Callable[..., LiveModel], reasons: tuple[str, ...] | None
) -> None:
    if reasons:
        tell(shelf, reasons=reasons)
    model = opened()
    disagreeing(shelf)
    calls_until(model, lambda: count(shelf, "1.2.0", shadow.DISAGREE) >= 20)
    model.close()
    assert measured(shelf, "1.2.0")[shadow.DISAGREE].min == 1
    assert files(shelf) == []


class Watched(np.ndarray):  # type: ignore[type-arg]
    """An input that counts its copies."""

    copies = 0

    def __copy__(self) -> Watched:
        Watched.copies += 1
        return super().__copy__()


def test_calls_that_are_not_of_the_sample_are_not_copied(
    shelf: Shelf, opened: Callable[..., LiveModel]
) -> None:
    tell(shelf, **WANTED)
    model = opened()
    disagreeing(shelf, share=0.2)
    calls_until(model, lambda: count(shelf, "1.2.0", shadow.DISAGREE))
    feeds = {"x": X["x"].view(Watched)}
    for _ in range(200):
        model.run(feeds)
        time.sleep(0.005)
    model.close()
    assert 0 < Watched.copies < 90  # about 40 were of the sample


def test_the_applications_own_comparison_says_what_is_captured(
    shelf: Shelf, opened: Callable[..., LiveModel]
) -> None:
    tell(shelf, **WANTED)

    def near(ours: Any, theirs: Any) -> bool:
        return bool(abs(ours["y"] - theirs["y"]).max() < 0.5)

    model = opened(compare=near)
    shelf.shadow(shelf.add(2))
    calls_until(model, lambda: files(shelf))
    model.close()
    assert answers(files(shelf)[0]) == ({1.0}, {2.0})


def test_disagreements_stay_within_the_days_budget(
    shelf: Shelf, opened: Callable[..., LiveModel]
) -> None:
    tell(shelf, **WANTED, max_bytes_per_day=1000)
    model = opened()
    disagreeing(shelf)
    calls_until(model, lambda: count(shelf, "1.2.0", shadow.DISAGREE) >= 50)
    model.close()
    found = files(shelf)
    assert 0 < len(found) < 20
    assert sum(path.stat().st_size for path in found) <= 1000 + len(found) * 1024


def test_a_trial_that_runs_captures_nothing_more_once_the_owner_says_so(
    shelf: Shelf, opened: Callable[..., LiveModel]
) -> None:
    tell(shelf, **WANTED)
    model = opened()
    disagreeing(shelf)
    calls_until(model, lambda: files(shelf))
    shelf.layout.capture_rules.unlink()
    model._capture._rules._look_at = 0.0
    before = set(until_still(lambda: files(shelf)))
    seen = count(shelf, "1.2.0", shadow.DISAGREE)
    calls_until(model, lambda: count(shelf, "1.2.0", shadow.DISAGREE) >= seen + 20)
    model.close()
    assert set(files(shelf)) == before
