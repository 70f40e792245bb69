"""The fixed point is what the greedy loop keeps."""

import numpy as np
import pytest
import tensorflow as tf
from reference import nms_reference

from tpu_retinamask.ops.nms import nms


def _crowd(seed, count=60, canvas=100, batch=1):
    """Integer boxes, many equal or nested: every IoU is a ratio of small integers, far from rounding."""
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, canvas, (batch, count, 2))
    boxes = np.concatenate([corner, corner + rng.integers(5, 60, (batch, count, 2))], 2).astype(np.float32)
    boxes[:, count // 2] = boxes[:, 0]
    return boxes, rng.random((batch, count)) < 0.9, rng.integers(0, 3, (batch, count)).astype(np.int32)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("canvas", [10, 40, 200])
def test_equals_the_greedy_loop_on_many_seeds(threshold, canvas):
    for seed in range(10):
        boxes, valid, classes = _crowd(seed, canvas=canvas)
        for labels in (None, classes):
            keep = nms(tf.constant(boxes), tf.constant(valid), threshold, None if labels is None else labels)
            expected = nms_reference.nms(boxes[0], valid[0], threshold, None if labels is None else labels[0])
            assert keep[0].numpy().tolist() == expected


@pytest.mark.parametrize("length", [2, 3, 30, 31])
def test_a_chain_keeps_every_second_box(length):
    # Each box overlaps only its neighbours (IoU 1/2 > 0.4, next but one 1/5): the longest possible chain.
    boxes = np.array([[[4 * i, 0, 4 * i + 12, 10] for i in range(length)]], np.float32)
    keep = nms(tf.constant(boxes), tf.ones([1, length], tf.bool), 0.4)
    assert keep[0].numpy().tolist() == [i % 2 == 0 for i in range(length)]


def test_threshold_is_exclusive():
    boxes = tf.constant([[[0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 5]]], tf.float32)  # IoU exactly 1/2, then 1
    assert nms(boxes, tf.ones([1, 3], tf.bool), 0.5)[0].numpy().tolist() == [True, True, False]
    assert nms(boxes, tf.ones([1, 3], tf.bool), 0.49)[0].numpy().tolist() == [True, False, False]


def test_equal_boxes_leave_one():
    boxes = tf.tile(tf.constant([[[3.0, 3, 9, 9]]]), [1, 8, 1])
    valid = tf.constant([[False, False] + [True] * 6])
    assert nms(boxes, valid, 0.5)[0].numpy().tolist() == [False, False, True] + [False] * 5


def test_classes_never_meet():
    boxes = tf.tile(tf.constant([[[3.0, 3, 9, 9]]]), [1, 4, 1])
    keep = nms(boxes, tf.ones([1, 4], tf.bool), 0.5, tf.constant([[0, 1, 0, 1]]))
    assert keep[0].numpy().tolist() == [True, True, False, False]


def test_padding_neither_survives_nor_suppresses():
    boxes = tf.constant([[[0, 0, 10, 10], [0, 0, 10, 10]]], tf.float32)
    assert nms(boxes, tf.constant([[False, True]]), 0.5)[0].numpy().tolist() == [False, True]
    assert nms(boxes, tf.zeros([1, 2], tf.bool), 0.5)[0].numpy().tolist() == [False, False]


def test_boxes_without_area_suppress_nothing():
    boxes = tf.constant([[[5, 5, 5, 9], [5, 5, 5, 9], [4, 4, 6, 6]]], tf.float32)
    assert nms(boxes, tf.ones([1, 3], tf.bool), 0.5)[0].numpy().tolist() == [True] * 3


def test_batch_equals_singles_though_the_rounds_are_shared():
    boxes, valid, classes = _crowd(11, canvas=30, batch=4)
    valid[3] = False
    keep = nms(tf.constant(boxes), tf.constant(valid), 0.4, tf.constant(classes))
    for b in range(4):
        one = nms(boxes[b : b + 1], tf.constant(valid[b : b + 1]), 0.4, classes[b : b + 1])
        np.testing.assert_array_equal(keep[b], one[0])


def test_survivors_survive_a_second_time():
    boxes, valid, classes = _crowd(12, canvas=30)
    once = nms(boxes, tf.constant(valid), 0.4, classes)
    np.testing.assert_array_equal(nms(boxes, once, 0.4, classes), once)


def test_compiled_equals_the_greedy_loop():
    boxes, valid, classes = _crowd(13, count=120, canvas=40, batch=3)
    compiled = tf.function(lambda b, v, c: nms(b, v, 0.45, c), jit_compile=True)
    keep = compiled(tf.constant(boxes), tf.constant(valid), tf.constant(classes)).numpy()
    for b in range(3):
        assert keep[b].tolist() == nms_reference.nms(boxes[b], valid[b], 0.45, classes[b])


def test_corners_in_either_order():
    """A box decoded inside out suppresses as the box it encloses."""
    boxes = tf.constant([[[0.0, 0.0, 10.0, 10.0], [10.0, 9.0, 0.0, 1.0], [30.0, 30.0, 20.0, 20.0]]])
    np.testing.assert_array_equal(nms(boxes, tf.ones([1, 3], tf.bool), 0.5), [[True, False, True]])


@pytest.mark.parametrize("enough", [1, 7, 60, 100])
def test_enough_survivors_are_the_first_of_all(enough):
    boxes, valid, classes = _crowd(14, canvas=200, batch=4)
    valid[2] = False
    valid[3, 1:] = False
    every = nms(tf.constant(boxes), tf.constant(valid), 0.4, tf.constant(classes)).numpy()
    assert every[:2].sum(axis=1).min() > 7  # so that there is something to leave out
    keep = nms(tf.constant(boxes), tf.constant(valid), 0.4, tf.constant(classes), enough)
    np.testing.assert_array_equal(keep, every & (np.cumsum(every, axis=1) <= enough))


@pytest.mark.parametrize("block", [1, 7, 20, 59, 60, 64])
@pytest.mark.parametrize("enough", [None, 5])
def test_blocks_of_any_size_equal_the_greedy_loop(block, enough):
    for seed in range(5):
        boxes, valid, classes = _crowd(seed, canvas=40, batch=2)
        keep = nms(tf.constant(boxes), tf.constant(valid), 0.5, tf.constant(classes), enough, block).numpy()
        for b in range(2):
            every = np.array(nms_reference.nms(boxes[b], valid[b], 0.5, classes[b]))
            np.testing.assert_array_equal(keep[b], every & (np.cumsum(every) <= (enough or 60)))


def test_a_chain_goes_on_from_block_to_block():
    boxes = np.array([[[4 * i, 0, 4 * i + 12, 10] for i in range(31)]], np.float32)
    for block in (2, 3, 10):
        keep = nms(boxes, tf.ones([1, 31], tf.bool), 0.4, block=block)
        assert keep[0].numpy().tolist() == [i % 2 == 0 for i in range(31)]


def test_an_image_without_boxes_does_not_stop_another():
    boxes, valid, classes = _crowd(15, canvas=200, batch=2)
    valid[0] = False
    valid[1, :20] = False  # the first block of 10 settles nothing in either
    keep = nms(tf.constant(boxes), tf.constant(valid), 0.5, tf.constant(classes), block=10).numpy()
    assert not keep[0].any()
    assert keep[1].tolist() == nms_reference.nms(boxes[1], valid[1], 0.5, classes[1])
