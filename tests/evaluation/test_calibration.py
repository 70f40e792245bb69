"""Calibration worked by hand."""

import math

import numpy as np
import pytest

from tpu_retinamask.evaluation.calibration import calibrate


def test_worked_by_hand():
    # Two at 0.85 of which one is right, two at 0.3 (of the bin that begins there) of which none is.
    found = calibrate(np.array([0.85, 0.85, 0.3, 0.3]), np.array([True, False, False, False]))
    assert [one.count for one in found.bins] == [0, 0, 0, 2, 0, 0, 0, 0, 2, 0]
    assert found.bins[8] == pytest.approx((0.8, 0.9, 2, 0.85, 0.5))
    assert found.bins[3] == pytest.approx((0.3, 0.4, 2, 0.3, 0.0))
    assert math.isnan(found.bins[0].score) and math.isnan(found.bins[0].found)
    assert found.error == pytest.approx((2 * 0.35 + 2 * 0.3) / 4)


def test_the_last_bin_holds_1_and_nothing_is_lost():
    scores = np.linspace(0, 1, 101)
    found = calibrate(scores, np.ones(101, bool))
    assert [one.count for one in found.bins] == [10] * 9 + [11]
    assert found.error == pytest.approx(0.5)  # 1 - mean score


def test_no_detections():
    found = calibrate(np.zeros(0), np.zeros(0, bool))
    assert math.isnan(found.error) and sum(one.count for one in found.bins) == 0
