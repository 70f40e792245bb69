"""Areas, overlaps, clipping and both box coders."""

import numpy as np
import pytest
import tensorflow as tf
from reference import box_reference

from tpu_retinamask.ops.boxes import (
    CenterBoxCoder,
    CornerBoxCoder,
    box_area,
    clip_boxes,
    pad_invalid,
    pairwise_iou,
)


def _random_boxes(rng, *shape, low=0.0, high=200.0, smallest=1.0):
    corner = rng.uniform(low, high, (*shape, 2))
    return np.concatenate([corner, corner + rng.uniform(smallest, 80, (*shape, 2))], -1).astype(np.float32)


def test_area_of_known_boxes():
    boxes = tf.constant([[1, 2, 4, 6], [1, 1, 2, 2], [3, 3, 3, 9], [5, 5, 2, 9], [5, 5, 2, 2]], tf.float32)
    np.testing.assert_array_equal(box_area(boxes), [12, 1, 0, 0, 0])


def test_iou_of_known_boxes():
    # Half-open: the second box shares 5 x 10 of 100 + 100 - 50; touching boxes share nothing.
    a = tf.constant([[0, 0, 10, 10]], tf.float32)
    b = tf.constant([[0, 0, 10, 10], [5, 0, 15, 10], [10, 0, 20, 10], [2, 2, 4, 4], [3, 3, 3, 3]], tf.float32)
    np.testing.assert_allclose(pairwise_iou(a, b)[0], [1, 1 / 3, 0, 0.04, 0], rtol=1e-6)


def test_iou_equals_loops_and_broadcasts():
    rng = np.random.default_rng(1)
    a, b = _random_boxes(rng, 12), _random_boxes(rng, 3, 7)
    a[0, 2:] = a[0, :2]  # no area
    expected = [[[box_reference.iou(x, y) for y in image] for x in a] for image in b]
    # Sides of about 50 come from coordinates near 200: relative rounding of a side is 200/50 * 6e-8.
    np.testing.assert_allclose(pairwise_iou(a[None], b), expected, atol=2e-6)


def test_iou_is_symmetric_and_free_of_scale():
    rng = np.random.default_rng(2)
    a, b = _random_boxes(rng, 20), _random_boxes(rng, 15)
    iou = pairwise_iou(a, b).numpy()
    np.testing.assert_allclose(iou, pairwise_iou(b, a).numpy().T, rtol=1e-6)
    np.testing.assert_array_equal(iou, pairwise_iou(a * 4, b * 4))  # powers of two do not round


def test_iou_of_padding_is_zero_with_finite_gradient():
    boxes = tf.Variable(tf.zeros([2, 4]))
    with tf.GradientTape() as tape:
        iou = pairwise_iou(boxes, boxes)
    np.testing.assert_array_equal(iou, np.zeros((2, 2)))
    assert np.isfinite(tape.gradient(iou, boxes)).all()


def test_one_pixel_and_distant_boxes_keep_their_iou():
    a = tf.constant([[4000, 4000, 4001, 4001]], tf.float32)
    b = tf.constant([[4000, 4000, 4001, 4002], [4000.5, 4000, 4001.5, 4001]], tf.float32)
    np.testing.assert_allclose(pairwise_iou(a, b)[0], [0.5, 1 / 3], rtol=1e-6)


def test_clip_by_one_limit_and_by_a_limit_an_image():
    boxes = tf.constant([[[-5, -6, 30, 40], [90, 90, 95, 99], [1, 2, 3, 4]]] * 2, tf.float32)
    one = clip_boxes(boxes, tf.constant([20, 10]))  # height 20, width 10
    np.testing.assert_array_equal(one[0], [[0, 0, 10, 20], [10, 20, 10, 20], [1, 2, 3, 4]])
    each = clip_boxes(boxes, tf.constant([[20, 10], [2, 91]]))
    np.testing.assert_array_equal(each[0], one[0])
    np.testing.assert_array_equal(each[1], [[0, 0, 30, 2], [90, 2, 91, 2], [1, 2, 3, 2]])
    np.testing.assert_array_equal(each[1, 0], box_reference.clip([-5, -6, 30, 40], 2, 91))
    np.testing.assert_array_equal(clip_boxes(one, tf.constant([20, 10])), one)


def test_corner_coder_known_values():
    # Anchor 20 wide, 10 high; corners moved by 2, -1, 4, 2 pixels; divided by sides, then by 0.2.
    deltas = CornerBoxCoder().encode(tf.constant([[12.0, 19.0, 34.0, 32.0]]), tf.constant([[10.0, 20.0, 30.0, 30.0]]))
    np.testing.assert_allclose(deltas[0], [0.5, -0.5, 1.0, 1.0], rtol=1e-6)


def test_center_coder_known_values():
    # Centre moved by (5, 0) of an anchor 20 x 10, twice as wide, half as high.
    deltas = CenterBoxCoder().encode(tf.constant([[5.0, 22.5, 45.0, 27.5]]), tf.constant([[10.0, 20.0, 30.0, 30.0]]))
    np.testing.assert_allclose(deltas[0], [2.5, 0, 5 * np.log(2), -5 * np.log(2)], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "coder, reference, options",
    [
        (CornerBoxCoder(), box_reference.corner_deltas, {}),
        (CornerBoxCoder(mean=0.1, std=0.5), box_reference.corner_deltas, dict(mean=0.1, std=0.5)),
        (CenterBoxCoder(), box_reference.center_deltas, {}),
        (
            CenterBoxCoder((1.0, 2.0, 3.0, 4.0)),
            box_reference.center_deltas,
            dict(weights=(1.0, 2.0, 3.0, 4.0)),
        ),
    ],
    ids=["corner", "corner-scaled", "center", "center-weights"],
)
def test_coders_equal_loops_and_return(coder, reference, options):
    rng = np.random.default_rng(3)
    boxes, anchors = _random_boxes(rng, 2, 30), _random_boxes(rng, 30, smallest=8)
    deltas = coder.encode(boxes, anchors[None])
    expected = [
        [reference([float(v) for v in b], [float(v) for v in a], **options) for b, a in zip(image, anchors)]
        for image in boxes
    ]
    # Coordinates up to 280 round by 1.5e-5, against anchors of 8 and a factor of at most 10.
    np.testing.assert_allclose(deltas, expected, atol=1e-4, rtol=1e-5)
    np.testing.assert_allclose(coder.decode(deltas, anchors[None]), boxes, atol=1e-3, rtol=0)


def test_corner_decode_equals_reference():
    box = CornerBoxCoder().decode(tf.constant([[1.0, -2.0, 3.0, 0.5]]), tf.constant([[10.0, 20.0, 30.0, 30.0]]))
    np.testing.assert_allclose(box[0], box_reference.corner_box([1, -2, 3, 0.5], [10, 20, 30, 30]), rtol=1e-6)
    np.testing.assert_allclose(box[0], [14, 16, 42, 31], rtol=1e-6)


@pytest.mark.parametrize("coder", [CornerBoxCoder(), CenterBoxCoder()], ids=["corner", "center"])
def test_no_delta_means_the_anchor(coder):
    anchors = tf.constant([[-3.0, 4.0, 29.0, 20.0]])
    np.testing.assert_allclose(coder.encode(anchors, anchors), np.zeros((1, 4)), atol=1e-7)
    np.testing.assert_array_equal(coder.decode(tf.zeros([1, 4]), anchors), anchors)


def test_center_coder_survives_padding_and_wild_predictions():
    anchors = tf.constant([[0.0, 0.0, 32.0, 16.0]])
    assert np.isfinite(CenterBoxCoder().encode(tf.zeros([1, 4]), anchors)).all()
    deltas = tf.Variable([[0.0, 0.0, 1e4, 1e4]])
    with tf.GradientTape() as tape:
        box = CenterBoxCoder().decode(deltas, anchors)
    # Sizes are capped at 1000 / 16 = 62.5 anchors: 2000 wide, 1000 high about (16, 8).
    np.testing.assert_allclose(box[0], [-984, -492, 1016, 508], rtol=1e-5)
    assert np.isfinite(tape.gradient(box, deltas)).all()


def test_pad_invalid():
    boxes = tf.constant([[[1.0, 2, 3, 4], [5, 6, 7, 8]]])
    padded = pad_invalid(boxes, tf.constant([[False, True]]))
    np.testing.assert_array_equal(padded[0], [[-1, -1, -1, -1], [5, 6, 7, 8]])


def test_compiled_equals_eager():
    rng = np.random.default_rng(4)
    a, b = tf.constant(_random_boxes(rng, 2, 50)), tf.constant(_random_boxes(rng, 2, 50))

    def everything(a, b):
        deltas = CenterBoxCoder().encode(a, b)
        return pairwise_iou(a, b), deltas, CenterBoxCoder().decode(deltas, b), CornerBoxCoder().encode(a, b)

    # Fused multiply-adds round once where eager rounds twice; deltas reach several hundred.
    for compiled, eager in zip(tf.function(everything, jit_compile=True)(a, b), everything(a, b)):
        np.testing.assert_allclose(compiled, eager, rtol=1e-4, atol=1e-4)
