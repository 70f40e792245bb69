"""Anchors are constants whose every number can be worked out by hand."""

import numpy as np
import pytest
from reference import anchor_reference, box_reference

from tpu_retinamask.ops.anchors import AnchorGrid


def test_level_sides_are_rounded_up():
    shapes = AnchorGrid().level_shapes((876, 1876))
    assert shapes == [(110, 235), (55, 118), (28, 59), (14, 30), (7, 15)]


def test_counts_at_876x1876():
    counts = [len(level) for level in AnchorGrid().anchors((876, 1876))]
    assert counts == [232650, 58410, 14868, 3780, 945]
    assert sum(counts) == 310653


def test_hand_worked_cell():
    # Cell row 1, column 2 of P3: centre x = 2.5 * 8 = 20, y = 1.5 * 8 = 12.
    level = AnchorGrid().anchors((64, 64))[0]
    cell = level[(1 * 8 + 2) * 9 :][:9]
    # Ratio 1, scale 1 (fourth anchor): 32 x 32.
    np.testing.assert_allclose(cell[3], [4, -4, 36, 28], atol=1e-5)
    # Ratio 0.5, scale 1 (first): w = sqrt(1024 / .5) = 45.2548, h = 22.6274.
    np.testing.assert_allclose(cell[0], [20 - 22.6274, 12 - 11.3137, 20 + 22.6274, 12 + 11.3137], atol=1e-4)
    # Ratio 2, scale 2**(2/3) (last): side 50.7968, w = 35.9188, h = 71.8376.
    np.testing.assert_allclose(cell[8], [20 - 17.9594, 12 - 35.9188, 20 + 17.9594, 12 + 35.9188], atol=1e-4)


@pytest.mark.parametrize("size", [(96, 128), (101, 67), (1, 1), (130, 9)])
def test_equals_loops_over_cells(size):
    anchors = np.concatenate(AnchorGrid().anchors(size))
    # Ratios and scales are rounded to float32 before use, at most 6e-8 of a side below 813 pixels.
    np.testing.assert_allclose(anchors, anchor_reference.anchors(*size), atol=1e-4, rtol=0)


def test_own_levels_sizes_and_ratios():
    grid = AnchorGrid(levels=(3, 5), sizes=(10, 50), strides=(8, 32), ratios=(1.0, 4.0), scales=(1.0,))
    expected = anchor_reference.anchors(40, 70, (10, 50), (3, 5), (1.0, 4.0), (1.0,))
    np.testing.assert_allclose(np.concatenate(grid.anchors((40, 70))), expected, atol=1e-4, rtol=0)


def test_a_grid_of_a_larger_image_holds_the_smaller_one():
    small, large = AnchorGrid().anchors((64, 96)), AnchorGrid().anchors((128, 160))
    for a, b, (h, w), (_, w2) in zip(
        small, large, AnchorGrid().level_shapes((64, 96)), AnchorGrid().level_shapes((128, 160))
    ):
        np.testing.assert_array_equal(a.reshape(h, w, 9, 4), b.reshape(-1, w2, 9, 4)[:h, :w])


def test_best_iou_equals_brute_force_over_the_grid():
    rng = np.random.default_rng(0)
    # Well inside a canvas so large that the bounded grid holds every anchor that can be best.
    centre = rng.uniform(300, 400, (15, 2))
    side = np.exp(rng.uniform(np.log(1), np.log(280), (15, 2)))
    boxes = np.concatenate([centre - side / 2, centre + side / 2], axis=1)
    anchors = np.concatenate(AnchorGrid().anchors_float64((768, 768)))
    low = np.maximum(anchors[:, None, :2], boxes[None, :, :2])
    high = np.minimum(anchors[:, None, 2:], boxes[None, :, 2:])
    common = np.prod(np.maximum(high - low, 0), axis=2)
    area = np.prod(anchors[:, 2:] - anchors[:, :2], axis=1)[:, None] + np.prod(side, axis=1)[None]
    brute = (common / (area - common)).max(axis=0)
    # Both in float64; only the order of the operations differs.
    np.testing.assert_allclose(AnchorGrid().best_iou(boxes), brute, rtol=1e-12)


def test_best_iou_of_anchors_themselves_and_of_nothing():
    grid = AnchorGrid()
    anchors = np.concatenate(grid.anchors_float64((64, 64)))
    # Rounding of centre and half side in float64.
    np.testing.assert_allclose(grid.best_iou(anchors), 1.0, rtol=1e-12)
    np.testing.assert_array_equal(grid.best_iou([[5, 5, 5, 9], [0, 0, 0, 0]]), [0.0, 0.0])
    assert grid.best_iou(np.zeros((0, 4))).tolist() == []


def test_best_iou_tells_small_objects_from_the_default_sizes():
    # A centred 8 x 8 box in the best case: 64 / 1024.
    assert AnchorGrid().best_iou([[0, 0, 8, 8]])[0] == pytest.approx(64 / 1024)
    assert box_reference.iou([0, 0, 8, 8], [-12, -12, 20, 20]) == pytest.approx(64 / 1024)


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match="sizes has 2 entries but there are 5"):
        AnchorGrid(sizes=(32, 64))
    with pytest.raises(ValueError, match="not positive"):
        AnchorGrid(ratios=(0.5, 0.0))
