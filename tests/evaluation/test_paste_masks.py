"""Pasting box-relative masks: against a per-pixel reference, worked by hand, and at the edges."""

import math

import numpy as np
import pytest

from tpu_retinamask.evaluation.results import paste_masks


def slow_paste(mask, box, height, width, threshold=0.5):
    """One pixel at a time, from the docstring's formula."""
    side = mask.shape[0]
    x1, y1, x2, y2 = box
    pasted = np.zeros((height, width), bool)
    for y in range(height):
        for x in range(width):
            if not (x1 <= x + 0.5 < x2 and y1 <= y + 0.5 < y2):
                continue
            u = min(max((x + 0.5 - x1) / (x2 - x1) * side - 0.5, 0), side - 1)
            v = min(max((y + 0.5 - y1) / (y2 - y1) * side - 0.5, 0), side - 1)
            u0, v0 = math.floor(u), math.floor(v)
            u1, v1 = min(u0 + 1, side - 1), min(v0 + 1, side - 1)
            value = (
                mask[v0, u0] * (1 - (u - u0)) * (1 - (v - v0)) + mask[v0, u1] * (u - u0) * (1 - (v - v0))
                + mask[v1, u0] * (1 - (u - u0)) * (v - v0) + mask[v1, u1] * (u - u0) * (v - v0)
            )  # fmt: skip
            pasted[y, x] = value > threshold
    return pasted


def test_agrees_with_a_loop_over_pixels():
    rng = np.random.default_rng(0)
    boxes = np.concatenate(
        [
            np.sort(rng.uniform(-10, 50, (20, 2, 2)), 1).reshape(20, 4),  # decimals, partly outside
            [[3, 4, 31, 32], [-20, -20, 60, 60], [7, 9, 8, 10], [5.2, 5.2, 6.9, 30.7], [0, 0, 37, 29]],
        ]
    )
    masks = rng.uniform(0, 1, (len(boxes), 7, 7)).astype(np.float32)
    pasted = paste_masks(masks, boxes, 29, 37, threshold=0.45)
    expected = np.stack([slow_paste(m.astype(np.float64), b, 29, 37, 0.45) for m, b in zip(masks, boxes)])
    np.testing.assert_array_equal(pasted, expected)
    assert 500 < pasted.sum() < pasted.size / 2  # the cases do draw something


def test_left_half_worked_by_hand():
    # S = 2, box x from 2 to 6: centres 2.5 .. 5.5 sample u = -.25 .25 .75 1.25, clamped to 0 .25 .75 1.
    # Values along x are 1 - u = 1 .75 .25 0, so the first two pixels pass 0.5.
    mask = np.array([[[1, 0], [1, 0]]], np.float32)
    pasted = paste_masks(mask, [[2, 1, 6, 3]], 4, 8)
    expected = np.zeros((4, 8), bool)
    expected[1:3, 2:4] = True
    np.testing.assert_array_equal(pasted[0], expected)
    # With a threshold between .25 and .75 nothing changes; below .25 a third column joins.
    assert paste_masks(mask, [[2, 1, 6, 3]], 4, 8, threshold=0.2)[0].sum() == 6


def test_first_mask_axis_is_y():
    mask = np.array([[[1, 1], [0, 0]]], np.float32)
    pasted = paste_masks(mask, [[0, 0, 4, 4]], 4, 4)[0]
    np.testing.assert_array_equal(pasted, [[True] * 4] * 2 + [[False] * 4] * 2)


@pytest.mark.parametrize(
    "box, rows, columns",
    [
        ([2, 3, 7, 9], (3, 9), (2, 7)),
        ([2.5, 3.5, 7.5, 9.5], (3, 9), (2, 7)),  # a centre on the left edge is in, on the right edge out
        ([2.51, 3.51, 7.51, 9.51], (4, 10), (3, 8)),
        ([-5, -5, 4, 4], (0, 4), (0, 4)),  # over the top left corner
        ([8, 7, 99, 99], (7, 12), (8, 10)),  # over the bottom right corner
        ([4, 5, 5, 6], (5, 6), (4, 5)),  # one pixel
        ([4.4, 5.4, 4.6, 5.6], (5, 6), (4, 5)),  # less than a pixel, around a centre
        ([4.6, 5.6, 5.4, 6.4], (0, 0), (0, 0)),  # nearly a pixel, around no centre
        ([20, 20, 30, 30], (0, 0), (0, 0)),  # beyond the image
        ([-30, 2, -3, 6], (0, 0), (0, 0)),
        ([4, 5, 4, 9], (0, 0), (0, 0)),  # no width
        ([-1, -1, -1, -1], (0, 0), (0, 0)),  # a padding row
        ([6, 6, 3, 3], (0, 0), (0, 0)),  # inside out
    ],
)
def test_all_ones_fill_the_pixels_whose_centre_is_in_the_box(box, rows, columns):
    expected = np.zeros((12, 10), bool)
    expected[slice(*rows), slice(*columns)] = True
    np.testing.assert_array_equal(paste_masks(np.ones((1, 28, 28)), [box], 12, 10)[0], expected)


def test_exactly_the_threshold_is_outside():
    # A constant mask must stay constant under interpolation, at odd sizes too.
    assert paste_masks(np.full((1, 28, 28), 0.5), [[0.3, 0.7, 90.1, 70.9]], 100, 100).sum() == 0
    for threshold in np.linspace(0.1, 0.9, 33, dtype=np.float32):
        mask = np.full((1, 28, 28), threshold)
        assert paste_masks(mask, [[0.3, 0.7, 90.1, 70.9]], 100, 100, threshold).sum() == 0


def test_one_pixel_box_takes_the_middle_of_the_mask():
    masks = np.zeros((2, 28, 28), np.float32)
    masks[0, 13:15, 13:15] = 1
    masks[1] = 1 - masks[0]
    np.testing.assert_array_equal(paste_masks(masks, [[4, 5, 5, 6]] * 2, 10, 10)[:, 5, 4], [True, False])


def test_no_masks():
    assert paste_masks(np.zeros((0, 28, 28)), np.zeros((0, 4)), 5, 6).shape == (0, 5, 6)


def test_wrong_shapes_and_numbers_are_refused():
    with pytest.raises(ValueError, match=r"masks \(2, 28, 28\) and boxes \(3, 4\)"):
        paste_masks(np.ones((2, 28, 28)), np.ones((3, 4)), 5, 5)
    with pytest.raises(ValueError, match="not finite"):
        paste_masks(np.ones((1, 28, 28)), [[0, 0, np.nan, 4]], 5, 5)
