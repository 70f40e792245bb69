"""The best threshold, worked by hand and against every threshold tried in turn."""

import numpy as np
import pytest

from tpu_retinamask.evaluation.thresholds import best_threshold


def test_worked_by_hand():
    # Found, wrong, found of two: F1 2/3, 1/2, 4/5.
    assert best_threshold(np.array([0.9, 0.8, 0.7]), np.array([True, False, True]), 2) == pytest.approx(
        (0.7, 0.8, 2 / 3, 1.0)
    )
    # With two more that are wrong, half-way to the next.
    found = np.array([True, False, True, False, False])
    assert best_threshold(np.array([0.9, 0.8, 0.7, 0.5, 0.1]), found, 2) == pytest.approx((0.6, 0.8, 2 / 3, 1.0))


def test_those_of_one_score_are_taken_together():
    scores, found = np.array([0.5, 0.5, 0.5, 0.2]), np.array([True, False, False, True])
    # The found one alone would give 2/3: 1 of 3 at 0.5 gives 2/5, all four 2/3.
    assert best_threshold(scores, found, 2) == pytest.approx((0.2, 2 / 3, 0.5, 1.0))


@pytest.mark.parametrize("found, wanted", [([], 3), ([False, False], 3), ([False], 0)])
def test_there_is_none_where_nothing_is_found_or_wanted(found, wanted):
    assert best_threshold(np.linspace(1, 0.5, len(found)), np.array(found, bool), wanted) is None


def test_no_threshold_has_a_larger_f1():
    random = np.random.default_rng(0)
    for _ in range(50):
        count = random.integers(1, 40)
        scores, found = random.integers(0, 12, count) / 12, random.random(count) < 0.5
        wanted = int(found.sum() + random.integers(0, 5))
        best = best_threshold(scores, found, wanted)
        if best is None:
            assert not found.any()
            continue

        def f1(threshold):
            taken = scores >= threshold
            return 2 * found[taken].sum() / (taken.sum() + wanted)

        assert best.f1 == pytest.approx(max(f1(score) for score in scores))
        assert f1(best.score) == pytest.approx(best.f1)
        assert 2 * best.precision * best.recall / (best.precision + best.recall) == pytest.approx(best.f1)
