"""Which regions train their masks."""

import numpy as np
import pytest
import tensorflow as tf
from reference import roi_choice_reference, scenes

from tpu_retinamask.model.mask_rois import select_mask_rois


def _batch(boxes, classes, has_mask=None):
    batch = scenes.random_batch(counts=(0,), num_boxes=len(boxes))
    classes = np.array(classes, np.int32)
    return batch._replace(
        boxes=tf.constant(boxes, tf.float32)[None],
        classes=tf.constant(classes)[None],
        has_mask=tf.constant(classes >= 0 if has_mask is None else has_mask)[None],
    )


def _rows(rois, b=0):
    return [([float(v) for v in box], int(m)) for box, m, v in zip(rois.boxes[b], rois.matched[b], rois.valid[b]) if v]


def test_order_is_truth_then_iou():
    truth = [[0, 0, 10, 10], [20, 20, 40, 40], [0, 0, 0, 0]]
    found = [[20, 20, 40, 38], [50, 50, 60, 60], [0, 0, 10, 9.75], [0, 0, 10, 5], [0, 0, 10, 4.9], [-1] * 4]
    rois = select_mask_rois(_batch(truth, [1, 0, -1]), tf.constant([found], tf.float32), num_rois=6)
    assert _rows(rois) == [(truth[0], 0), (truth[1], 1), (found[2], 0), (found[0], 1), (found[3], 0)]
    np.testing.assert_array_equal(rois.boxes[0, 5], [0, 0, 0, 0])
    assert int(rois.matched[0, 5]) == 0 and int(rois.overflow[0]) == 0


def test_overflow_is_counted_and_the_worst_are_left_out():
    truth = [[0, 0, 10, 10], [20, 20, 40, 40]]
    found = [[20, 20, 40, 38], [0, 0, 10, 6], [0, 0, 10, 9.5]]
    rois = select_mask_rois(_batch(truth, [1, 0]), tf.constant([found], tf.float32), num_rois=3)
    assert _rows(rois) == [(truth[0], 0), (truth[1], 1), (found[2], 0)]
    assert int(rois.overflow[0]) == 2
    rois = select_mask_rois(_batch(truth, [1, 0]), tf.constant([found], tf.float32), num_rois=1)
    assert len(_rows(rois)) == 1 and int(rois.overflow[0]) == 4


def test_boxes_without_a_mask_train_nothing():
    truth = [[0, 0, 10, 10], [20, 20, 40, 40]]
    found = [[20, 20, 40, 38], [0, 0, 10, 9]]
    rois = select_mask_rois(_batch(truth, [1, 0], [False, True]), tf.constant([found], tf.float32), num_rois=5)
    assert _rows(rois) == [(truth[1], 1), (found[0], 1)]
    assert int(rois.overflow[0]) == 0


@pytest.mark.parametrize("with_detections", [False, True])
def test_equal_boxes_keep_their_own_masks(with_detections):
    truth = [[0, 0, 10, 10]] * 3
    found = tf.constant([[[0, 0, 10, 9]]], tf.float32) if with_detections else None
    rois = select_mask_rois(_batch(truth, [1, 0, 2]), found, num_rois=6)
    assert [m for _, m in _rows(rois)] == [0, 1, 2] + [0] * with_detections


def test_ground_truth_alone():
    truth = [[0, 0, 10, 10], [0, 0, 0, 0], [20, 20, 40, 40], [5, 5, 5, 9]]  # the last has no area
    rois = select_mask_rois(_batch(truth, [1, -1, 0, 1]), None, num_rois=9)
    assert _rows(rois) == [(truth[0], 0), (truth[2], 2)]


def test_detections_alone():
    truth = [[0, 0, 10, 10], [20, 20, 40, 40]]
    found = [[20, 20, 40, 38], [50, 50, 60, 60], [0, 0, 10, 9.5]]
    batch, found_tensor = _batch(truth, [1, 0]), tf.constant([found], tf.float32)
    rois = select_mask_rois(batch, found_tensor, num_rois=6, from_truth=False)
    assert _rows(rois) == [(found[2], 0), (found[0], 1)]
    assert int(select_mask_rois(batch, found_tensor, num_rois=1, from_truth=False).overflow[0]) == 1
    with pytest.raises(ValueError, match="must be the regions"):
        select_mask_rois(batch, None, from_truth=False)


def test_image_without_boxes():
    rois = select_mask_rois(_batch([[0, 0, 0, 0]], [-1]), tf.constant([[[0, 0, 10, 9]]], tf.float32), num_rois=3)
    np.testing.assert_array_equal(rois.valid[0], [False] * 3)
    np.testing.assert_array_equal(rois.boxes[0], np.zeros((3, 4)))
    assert int(rois.overflow[0]) == 0


@pytest.mark.parametrize("num_rois", [4, 10, 60])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_equals_loops(num_rois, jit_compile):
    rng = np.random.default_rng(num_rois)
    batch = scenes.random_batch(num_rois, counts=(5, 2, 0), num_boxes=5)
    batch = batch._replace(has_mask=batch.has_mask & tf.constant(rng.random((3, 5)) < 0.7))
    truth = batch.boxes.numpy()
    # Detections scattered about the boxes, so that many lie on both sides of one half.
    found = truth[:, rng.integers(0, 5, 30)] + rng.uniform(-5, 5, (3, 30, 4))
    found = np.clip(found, 0, None).astype(np.float32)
    found[:, 25:] = -1
    function = tf.function(lambda b, f: select_mask_rois(b, f, num_rois=num_rois), jit_compile=jit_compile)
    rois = function(batch, tf.constant(found))
    for b in range(3):
        expected, overflow = roi_choice_reference.choose(
            truth[b], batch.classes[b].numpy(), batch.has_mask[b].numpy(), found[b], num_rois
        )
        rows = _rows(rois, b)
        assert [m for _, m in rows] == [m for _, m in expected]
        np.testing.assert_array_equal([box for box, _ in rows], [box for box, _ in expected])
        assert int(rois.overflow[b]) == overflow


def test_no_gradient_flows_back():
    found = tf.Variable([[[0.0, 0, 10, 9]]])
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(select_mask_rois(_batch([[0, 0, 10, 10]], [0]), found * 1.0, num_rois=4).boxes)
    assert tape.gradient(total, found) is None
