"""Mask targets: the matched instance's mask seen through a region."""

import numpy as np
import pytest
import tensorflow as tf
from reference import mask_reference

from tpu_retinamask.ops.masks import crop_masks


def _crop(mask, box, roi, size, **options):
    return crop_masks(
        tf.constant(mask)[None, None],
        tf.constant([[box]], tf.float32),
        tf.constant([[roi]], tf.float32),
        tf.zeros([1, 1], tf.int32),
        size,
        **options,
    )[0, 0].numpy()


def _blob(side, seed=0):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    wave = np.sin(7 * y + rng.uniform(0, 6)) + np.cos(9 * x + rng.uniform(0, 6))
    return (wave > 0).astype(np.uint8)


def test_a_region_equal_to_the_box_sees_the_mask_itself():
    mask = _blob(28)
    np.testing.assert_array_equal(_crop(mask, [10, 20, 66, 48], [10, 20, 66, 48], 28), mask)
    np.testing.assert_array_equal(_crop(mask, [10.3, 20.7, 65.9, 47.1], [10.3, 20.7, 65.9, 47.1], 28), mask)


def test_quarter_of_the_box_sees_a_quarter_of_the_mask():
    mask = _blob(16, 1)
    np.testing.assert_array_equal(_crop(mask, [0, 0, 32, 32], [16, 0, 32, 16], 8), mask[:8, 8:])


def test_twice_the_box_sees_the_mask_with_a_margin_of_zero():
    ones = np.ones((8, 8), np.uint8)
    expected = np.zeros((16, 16))
    expected[4:12, 4:12] = 1
    np.testing.assert_array_equal(_crop(ones, [8, 8, 16, 16], [4, 4, 20, 20], 16), expected)


def test_region_beside_the_box_sees_nothing():
    ones = np.ones((8, 8), np.uint8)
    assert not _crop(ones, [8, 8, 16, 16], [20, 8, 30, 16], 7).any()


def test_known_soft_values():
    # Mask cells (0 1) over a box 0..8: centres at 2 and 6. Region cells centred at 1, 3, 5, 7.
    mask = np.array([[0, 1], [0, 1]], np.uint8)
    soft = _crop(mask, [0, 0, 8, 8], [0, 0, 8, 8], 4, binary=False)
    np.testing.assert_allclose(soft, np.tile([0, 0.25, 0.75, 1], (4, 1)), atol=1e-6)
    np.testing.assert_array_equal(_crop(mask, [0, 0, 8, 8], [0, 0, 8, 8], 4), np.tile([0, 0, 1, 1], (4, 1)))


def test_crop_and_resize_of_a_full_size_mask_by_hand():
    # A mask of the image's size "fills" the image. Rows linspace(2, 5, 4) = 2 3 4 5, columns 1, 2.5, 4, 5.5.
    mask = np.zeros((8, 8), np.uint8)
    mask[3:5, 2:5] = 1
    soft = _crop(mask, [0, 0, 8, 8], [1, 2, 6.5, 6], 4, binary=False, semantics="crop_and_resize")
    np.testing.assert_allclose(soft, np.outer([0, 1, 1, 0], [0, 1, 1, 0]), atol=1e-6)
    soft = _crop(mask, [0, 0, 8, 8], [1.5, 2, 6, 6], 4, binary=False, semantics="crop_and_resize")
    # Columns linspace(1.5, 5, 4) = 1.5, 2.67, 3.83, 5: half way into the mask, inside, inside, past its end.
    np.testing.assert_allclose(soft, np.outer([0, 1, 1, 0], [0.5, 1, 1, 0]), atol=1e-6)


def test_unknown_semantics_are_refused():
    with pytest.raises(ValueError, match="semantics 'nearest' is not one of"):
        _crop(_blob(8), [0, 0, 8, 8], [0, 0, 8, 8], 4, semantics="nearest")


@pytest.mark.parametrize("semantics", ["aligned", "crop_and_resize"])
@pytest.mark.parametrize("seed", range(3))
def test_equals_loops(seed, semantics):
    rng = np.random.default_rng(seed)
    masks = np.stack([[_blob(20, 10 * seed + i) for i in range(3)] for _ in range(2)])
    corner = rng.uniform(0, 60, (2, 3, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(3, 50, (2, 3, 2))], 2).astype(np.float32)
    matched = rng.integers(0, 3, (2, 5)).astype(np.int32)
    rois = np.take_along_axis(boxes, matched[..., None], 1) + rng.uniform(-6, 6, (2, 5, 4))
    rois[:, 0] = [40, 40, 41, 41]  # one pixel
    rois = rois.astype(np.float32)
    soft, hard = (
        crop_masks(
            masks, tf.constant(boxes), tf.constant(rois), matched, 14, binary=binary, semantics=semantics
        ).numpy()
        for binary in (False, True)
    )
    for b in range(2):
        for k in range(5):
            expected = mask_reference.crop(
                masks[b, matched[b, k]],
                boxes[b, matched[b, k]].astype(np.float64),
                rois[b, k].astype(np.float64),
                14,
                semantics,
            )
            # A position near 100 rounds by 4e-6 pixels, times at most 20 / 3 cells a pixel.
            np.testing.assert_allclose(soft[b, k], expected, atol=2e-4)
            clear = np.abs(expected - 0.5) > 2e-3
            np.testing.assert_array_equal(hard[b, k][clear], (expected >= 0.5)[clear])


def test_rounding_does_not_decide_a_tie():
    # At R = 112 and S = 28 a region equal to its box samples midway between cells 4 i + 1 and 4 i + 2: at
    # a vertical edge there the value is one half, whatever the place and size of the box.
    mask = np.zeros((112, 112), np.uint8)
    mask[:, 54:] = 1  # the sample of cell 13 lies between 53 and 54
    expected = np.tile(np.arange(28) >= 13, (28, 1))
    rng = np.random.default_rng(3)
    for _ in range(20):
        corner, side = rng.uniform(0, 1000, 2), rng.uniform(5, 300, 2)
        box = [*corner, *(corner + side)]
        np.testing.assert_array_equal(_crop(mask, box, box, 28), expected)


def test_padding_is_finite():
    masks = tf.ones([1, 2, 8, 8], tf.uint8)
    boxes = tf.constant([[[0, 0, 0, 0], [1, 1, 5, 5]]], tf.float32)
    rois = tf.constant([[[0, 0, 0, 0], [-1, -1, -1, -1], [0, 0, 9, 9], [3, 3, 3, 3]]], tf.float32)
    soft = crop_masks(masks, boxes, rois, tf.constant([[0, 0, 0, 1]]), 5, binary=False)
    assert np.isfinite(soft).all()
    np.testing.assert_array_equal(soft[0, 3], np.ones((5, 5)))


def test_compiled_equals_eager():
    masks = np.stack([[_blob(28, i) for i in range(2)]])
    boxes = tf.constant([[[3, 4, 40, 50], [10, 10, 90, 60]]], tf.float32)
    rois = tf.constant([[[3, 4, 40, 50], [8, 12, 80, 70.5]]], tf.float32)
    matched = tf.constant([[0, 1]])
    compiled = tf.function(lambda r: crop_masks(masks, boxes, r, matched, 14), jit_compile=True)(rois)
    np.testing.assert_array_equal(compiled, crop_masks(masks, boxes, rois, matched, 14))
