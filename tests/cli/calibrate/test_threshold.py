"""Thresholds with a promise: kept over draws, refused with what would do where data show too
little."""

from __future__ import annotations

import numpy as np
import pytest

from pilotwave_cli.calibrate.threshold import (
    STEPS,
    CannotPromise,
    Labelled,
    at_share,
    check_big_beats_small,
    learn_then_test,
    most_harmed,
    promised,
)
from pilotwave_protocol.shares import upper_bound

DRAWS = 300
DELTA = 0.1


def population(rows: int = 4000) -> Labelled:
    """Inputs of which the small model gets the unsure ones wrong more often, the big one few."""
    chance = np.random.RandomState(0)
    sure = chance.beta(3, 1, rows)
    small = chance.uniform(size=rows) > 0.5 * (1 - sure)
    return Labelled(sure, small, chance.uniform(size=rows) > 0.02)


def drawn(whole: Labelled, rows: int, seed: int) -> Labelled:
    """A sample with replacement: halves of one set would be too unlike each other."""
    chosen = np.random.RandomState(seed).randint(0, whole.rows, rows)
    return Labelled(whole.confidence[chosen], whole.small[chosen], whole.big[chosen])


def breaks(whole: Labelled, threshold: float | None, excess: float) -> bool:
    return threshold is not None and whole.harmed(threshold) / whole.rows > excess


def best_on_data(data: Labelled, excess: float) -> float:
    steps = (s / STEPS for s in range(STEPS + 1))
    return next(t for t in steps if data.harmed(t) / data.rows <= excess)


@pytest.mark.parametrize(("excess", "rows"), [(0.01, 500), (0.02, 200), (0.03, 500)])
def test_the_promise_is_broken_in_few_samples_where_the_best_on_data_breaks_in_half(
    excess: float, rows: int
) -> None:
    whole = population()
    samples = [drawn(whole, rows, seed) for seed in range(DRAWS)]
    broken = [breaks(whole, learn_then_test(s, excess, DELTA), excess) for s in samples]
    naive = [breaks(whole, best_on_data(s, excess), excess) for s in samples]
    # by chance, 300 draws of a promise that is just kept come out this far above it
    assert np.mean(broken) <= DELTA + 2 * (DELTA * (1 - DELTA) / DRAWS) ** 0.5
    assert np.mean(naive) > 0.4


def test_how_many_may_be_harmed_is_the_exact_bound() -> None:
    for rows, excess in ((229, 0.01), (230, 0.01), (500, 0.02), (1000, 0.03)):
        most = most_harmed(rows, excess, DELTA)
        assert most < 0 or upper_bound(most, rows, 1 - DELTA) <= excess
        assert upper_bound(most + 1, rows, 1 - DELTA) > excess
    assert (most_harmed(229, 0.01, DELTA), most_harmed(230, 0.01, DELTA)) == (-1, 0)


def test_too_few_labels_are_refused_with_the_number_that_would_do() -> None:
    with pytest.raises(CannotPromise, match=r"200 labelled inputs cannot show .* 1%; 230 would do"):
        promised(drawn(population(), 200, 1), excess=0.01, delta=DELTA, share=1.0)


def test_a_number_that_would_do_does() -> None:
    whole = population()
    with pytest.raises(CannotPromise, match="would do, if they are like these") as refused:
        promised(drawn(whole, 200, 4), excess=0.02, delta=DELTA, share=0.6)
    number = int(str(refused.value).partition(" would do")[0].rpartition(" ")[2])
    assert 200 < number < 2000
    threshold = promised(drawn(whole, number * 2, 4), excess=0.02, delta=DELTA, share=0.6)
    assert whole.share(threshold) <= 0.62


def test_a_share_that_no_number_of_labels_can_keep_is_said() -> None:
    with pytest.raises(CannotPromise, match="no number of labels would do") as refused:
        promised(population(), excess=0.01, delta=DELTA, share=0.05)
    assert "with at most 5% escalated: it takes" in str(refused.value)


def test_a_small_model_that_is_good_enough_needs_no_file() -> None:
    right = np.ones(500, bool)
    data = Labelled(np.linspace(0.2, 1, 500), right, right)
    with pytest.raises(CannotPromise, match="needs no file for it"):
        promised(data, excess=0.02, delta=DELTA, share=1.0)


@pytest.mark.parametrize(
    ("better", "worse", "words"), [(5, 5, "is no gain"), (3, 1, "can be chance"), (12, 3, "")]
)
def test_the_bigger_model_has_to_be_better_on_what_is_escalated(
    better: int, worse: int, words: str
) -> None:
    rows = 100
    small, big = np.ones(rows, bool), np.ones(rows, bool)
    small[:better], big[better : better + worse] = False, False
    big[60:] = False  # what stays on the device is not held against it
    data = Labelled(np.r_[np.full(50, 0.1), np.full(50, 0.9)], small, big)
    if not words:
        check_big_beats_small(data, 0.5, DELTA)
        return
    with pytest.raises(CannotPromise, match=f"corrects {better} and spoils {worse}, which {words}"):
        check_big_beats_small(data, 0.5, DELTA)


def test_a_share_is_met_by_the_data_that_it_was_taken_from() -> None:
    data = population()
    assert data.share(at_share(data, 0.05)) == pytest.approx(0.05, abs=0.002)
