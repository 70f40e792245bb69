"""Which anchor and which region learns which box."""

import numpy as np
import pytest
import tensorflow as tf
from reference import box_reference, matching_reference

from tpu_retinamask.ops.anchors import AnchorGrid
from tpu_retinamask.ops.matching import first_argmax, match_anchors, match_rois
from tpu_retinamask.structures import BACKGROUND, IGNORED

_EVERYWHERE = [[1000, 1000]]


def _match(anchors, boxes, classes, content=_EVERYWHERE, **options):
    labels, matched = match_anchors(
        tf.constant(anchors, tf.float32),
        tf.constant(boxes, tf.float32)[None],
        tf.constant(classes)[None],
        tf.constant(content),
        **options,
    )
    return labels[0].numpy().tolist(), matched[0].numpy().tolist()


def test_thresholds_are_at_least_half_and_an_open_interval():
    # One box 10 x 10; anchors inside it, full width, so that IoU = height / 10: all exact in float32
    # but 0.4, whose nearest float32 is also what 40 / 100 rounds to.
    anchors = [[0, 0, 10, h] for h in (10, 6, 5, 4.9921875, 4.0078125, 4, 3)]
    labels, matched = _match(anchors, [[0, 0, 10, 10]], [7], best_match_iou=None)
    assert labels == [7, 7, 7, IGNORED, IGNORED, BACKGROUND, BACKGROUND]
    assert matched == [0] * 7


def test_own_thresholds():
    anchors = [[0, 0, 10, h] for h in (7.5, 7, 3, 2.5)]
    labels, _ = _match(anchors, [[0, 0, 10, 10]], [1], positive_iou=0.75, negative_iou=0.25, best_match_iou=None)
    assert labels == [1, IGNORED, IGNORED, BACKGROUND]
    with pytest.raises(ValueError, match="negative_iou 0.6 must not exceed positive_iou 0.5"):
        _match(anchors, [[0, 0, 10, 10]], [1], negative_iou=0.6)


def test_centre_rule_is_half_open():
    anchors = [
        [0, 0, 20, 20],
        [10, 0, 30, 20],
        [0, 10, 20, 30],
        [-30, 0, 10, 20],
    ]  # centres 10,10 20,10 10,20 -10,10
    labels, _ = _match(anchors, [[0, 0, 20, 20]], [3], content=[[20, 20]], best_match_iou=None)
    assert labels == [3, IGNORED, IGNORED, IGNORED]
    labels, _ = _match(anchors, [[0, 0, 20, 20]], [3], content=[[21, 21]], best_match_iou=None)
    assert labels == [3, BACKGROUND, BACKGROUND, IGNORED]


def test_equal_boxes_go_to_the_first():
    boxes = [[0, 0, 10, 10], [0, 0, 10, 10]]
    labels, matched = _match([[0, 0, 10, 10]], boxes, [4, 5], best_match_iou=None)
    assert (labels, matched) == ([4], [0])
    labels, matched = _match([[0, 0, 10, 10]], boxes, [-1, 5], best_match_iou=None)
    assert (labels, matched) == ([5], [1])


def test_no_boxes_keep_the_centre_rule():
    anchors = [[0, 0, 20, 20], [10, 0, 30, 20]]
    for best_match in (None, 0.0):
        labels, matched = _match(anchors, [[0, 0, 20, 20]], [-1], content=[[20, 20]], best_match_iou=best_match)
        assert (labels, matched) == ([BACKGROUND, IGNORED], [0, 0])


def test_box_without_area_matches_nothing():
    labels, _ = _match([[0, 0, 20, 20]], [[5, 5, 5, 9]], [2], best_match_iou=0.0)
    assert labels == [BACKGROUND]


def test_best_match_takes_all_tied_anchors():
    # The box 4 x 10 lies symmetrically between two anchors: IoU 2 * 10 / (100 + 40 - 20) = 1/6 with each.
    anchors = [[0, 0, 10, 10], [10, 0, 20, 10], [40, 40, 50, 50]]
    box = [8, 0, 12, 10]
    assert _match(anchors, [box], [6], best_match_iou=None)[0] == [BACKGROUND] * 3
    assert _match(anchors, [box], [6], best_match_iou=0.0)[0] == [6, 6, BACKGROUND]


def test_rounding_does_not_choose_among_the_anchors_that_contain_a_small_box():
    # Of equal area in exact arithmetic: all shapes of scale 1; their float32 corners differ by place.
    grid = AnchorGrid()
    exact = np.concatenate(grid.anchors_float64((128, 128)))
    anchors = np.concatenate(grid.anchors((128, 128)))
    box = np.array([57.3, 60.1, 73.9, 68.0], np.float32)
    contains = (exact[:, :2] <= box[:2]).all(axis=1) & (exact[:, 2:] >= box[2:]).all(axis=1)
    smallest = contains & (np.arange(len(anchors)) < 16 * 16 * 9) & (np.arange(len(anchors)) % 3 == 0)
    labels, _ = _match(anchors, [box], [0], best_match_iou=0.0)
    np.testing.assert_array_equal(np.array(labels) == 0, smallest)
    assert smallest.sum() > 3
    # Of these the nearest alone: the cell centred at (68, 60), all three of its shapes that hold the box.
    nearest, _ = _match(anchors, [box], [0], best_match_iou=0.0, best_match_ties="nearest")
    centre = (exact[:, :2] + exact[:, 2:]) / 2
    distance = np.sum((centre - [65.6, 64.05]) ** 2, axis=1)
    expected = smallest & (distance < distance[smallest].min() + 1e-6)
    np.testing.assert_array_equal(np.array(nearest) == 0, expected)
    assert 0 < expected.sum() < smallest.sum()


def test_of_tied_anchors_the_nearest_are_taken_by_hand():
    # Three anchors of 10 x 10 hold the box of 2 x 2 around (5, 5) and have the IoU 0.04; the centres of two are one
    # pixel away, that of the third two; a fourth holds half of it.
    anchors = [[1, 0, 11, 10], [0, 1, 10, 11], [2, 0, 12, 10], [5, 0, 15, 10]]
    assert _match(anchors, [[4, 4, 6, 6]], [3], best_match_iou=0.0)[0] == [3, 3, 3, BACKGROUND]
    nearest = _match(anchors, [[4, 4, 6, 6]], [3], best_match_iou=0.0, best_match_ties="nearest")[0]
    assert nearest == [3, 3, BACKGROUND, BACKGROUND]
    with pytest.raises(ValueError, match="best_match_ties 'first' is not one of"):
        _match(anchors, [[4, 4, 6, 6]], [3], best_match_ties="first")


def test_best_match_threshold_is_exclusive():
    anchors = [[0, 0, 10, 10], [40, 40, 50, 50]]
    box = [0, 0, 10, 2.5]  # IoU exactly 0.25
    assert _match(anchors, [box], [6], best_match_iou=0.2)[0] == [6, BACKGROUND]
    assert _match(anchors, [box], [6], best_match_iou=0.25)[0] == [BACKGROUND, BACKGROUND]


def test_best_match_lifts_an_ignored_anchor():
    assert _match([[0, 0, 10, 10]], [[0, 0, 10, 4.5]], [6], best_match_iou=None)[0] == [IGNORED]
    assert _match([[0, 0, 10, 10]], [[0, 0, 10, 4.5]], [6], best_match_iou=0.0)[0] == [6]


def test_two_boxes_that_want_one_anchor_leave_it_to_the_larger_iou():
    boxes = [[0, 0, 10, 2], [0, 0, 10, 3]]
    labels, matched = _match([[0, 0, 10, 10]], boxes, [8, 9], best_match_iou=0.0)
    assert (labels, matched) == ([9], [1])
    labels, matched = _match([[0, 0, 10, 10]], [boxes[0], boxes[0]], [8, 9], best_match_iou=0.0)
    assert (labels, matched) == ([8], [0])


def test_taken_anchor_belongs_to_the_box_that_took_it():
    # The large box has a perfect anchor of its own; the small one only overlaps the second anchor, whose
    # IoU with the large box is larger.
    anchors = [[0, 0, 10, 10], [0, 0, 10, 8]]
    labels, matched = _match(anchors, [[0, 0, 10, 10], [0, 0, 10, 2]], [1, 2], best_match_iou=0.0)
    assert (labels, matched) == ([1, 2], [0, 1])


def test_no_box_takes_an_anchor_outside_the_content():
    anchors = [[30, 0, 60, 20], [0, 0, 20, 20]]  # the first fits the box better but is centred outside
    labels, _ = _match(anchors, [[18, 0, 40, 20]], [3], content=[[20, 40]], best_match_iou=0.0)
    assert labels == [IGNORED, 3]


def _scene(seed, size=(96, 128), boxes=6):
    rng = np.random.default_rng(seed)
    anchors = np.concatenate(AnchorGrid().anchors(size))
    corner = rng.uniform(0, 70, (boxes, 2))
    gt = np.concatenate([corner, corner + rng.uniform(2, 60, (boxes, 2))], 1).astype(np.float32)
    gt[1] = gt[0]  # a pair of equal boxes
    gt[2] = anchors[rng.integers(len(anchors))]  # a box that is an anchor
    classes = rng.integers(0, 5, boxes).astype(np.int32)
    classes[rng.integers(boxes)] = -1
    return anchors, gt, classes


@pytest.mark.parametrize("best_match, ties", [(None, "all"), (0.0, "all"), (0.3, "all"), (0.0, "nearest")])
def test_equals_loops(best_match, ties):
    scenes = [_scene(seed) for seed in range(3)]
    anchors = scenes[0][0]
    boxes, classes = np.stack([s[1] for s in scenes]), np.stack([s[2] for s in scenes])
    classes[2] = -1  # an image without boxes
    content = np.array([[96, 128], [80, 100], [96, 64]], np.int32)
    labels, matched = match_anchors(anchors, boxes, classes, content, best_match_iou=best_match, best_match_ties=ties)
    for b in range(3):
        expected, row = matching_reference.match_anchors(
            anchors, boxes[b], classes[b], content[b], best_match_iou=best_match, best_match_ties=ties
        )
        # The loops work in float64, so an IoU within rounding of a threshold or of another may differ.
        assert np.mean(labels[b].numpy() != expected) < 1e-3
        assert np.mean(matched[b].numpy() != row) < 1e-3


def test_every_box_near_anchors_is_taken_when_compiled():
    # Best match compares an IoU with its own maximum: a compiler that computes the two differently
    # would leave boxes without anchors.
    size = (256, 320)
    anchors = np.concatenate(AnchorGrid().anchors(size))
    rng = np.random.default_rng(5)
    corner = rng.uniform(0, 200, (4, 30, 2))
    boxes = np.concatenate([corner, corner + np.exp(rng.uniform(0, 4, (4, 30, 2)))], 2).astype(np.float32)
    classes = np.tile(np.arange(30, dtype=np.int32), (4, 1))
    content = np.tile(np.array([size], np.int32), (4, 1))
    compiled = tf.function(match_anchors, jit_compile=True)
    labels, matched = compiled(tf.constant(anchors), tf.constant(boxes), classes, content)
    eager_labels, eager_matched = match_anchors(anchors, boxes, classes, content)
    np.testing.assert_array_equal(matched, eager_matched)
    np.testing.assert_array_equal(labels, eager_labels)
    for b in range(4):
        taken = set(labels[b].numpy().tolist())
        # A box may lose its anchors only to a box that overlaps the same anchor more.
        for lost in set(range(30)) - taken:
            assert any(box_reference.iou(boxes[b, lost], boxes[b, other]) > 0 for other in range(30) if other != lost)


def test_matching_a_batch_equals_matching_singles():
    scenes = [_scene(seed) for seed in (7, 8)]
    anchors = scenes[0][0]
    content = np.array([[96, 128], [50, 60]], np.int32)
    boxes, classes = np.stack([s[1] for s in scenes]), np.stack([s[2] for s in scenes])
    labels, matched = match_anchors(anchors, boxes, classes, content)
    for b in range(2):
        one_label, one_match = match_anchors(anchors, boxes[b : b + 1], classes[b : b + 1], content[b : b + 1])
        np.testing.assert_array_equal(labels[b], one_label[0])
        np.testing.assert_array_equal(matched[b], one_match[0])


def test_more_padding_changes_nothing():
    anchors, boxes, classes = _scene(9)
    content = tf.constant([[96, 128]])
    labels, matched = match_anchors(anchors, boxes[None], classes[None], content)
    wide_boxes, wide_classes = np.pad(boxes, [[0, 5], [0, 0]]), np.pad(classes, [0, 5], constant_values=-1)
    wide_labels, wide_matched = match_anchors(anchors, wide_boxes[None], wide_classes[None], content)
    np.testing.assert_array_equal(labels, wide_labels)
    np.testing.assert_array_equal(matched, wide_matched)


def test_first_argmax_along_both_axes():
    values = tf.constant([[1.0, 5.0, 5.0], [2.0, 5.0, 0.0]])
    np.testing.assert_array_equal(first_argmax(values, axis=1), [1, 1])
    np.testing.assert_array_equal(first_argmax(values, axis=0), [1, 0, 0])
    np.testing.assert_array_equal(first_argmax(tf.fill([2, 4], -1.0), axis=1), [0, 0])


def test_match_rois():
    rois = tf.constant([[[0, 0, 10, 10], [0, 0, 10, 5], [50, 50, 60, 60], [0, 0, 10, 10]]], tf.float32)
    boxes = tf.constant([[[0, 0, 10, 10], [0, 0, 10, 6], [0, 0, 10, 5]]], tf.float32)
    roi_valid = tf.constant([[True, True, True, False]])
    iou, matched = match_rois(rois, roi_valid, boxes, tf.constant([[True, True, False]]))
    np.testing.assert_allclose(iou[0], [1, 5 / 6, 0, -1], rtol=1e-6)
    np.testing.assert_array_equal(matched[0], [0, 1, 0, 0])
    iou, matched = match_rois(rois, roi_valid, boxes, tf.zeros([1, 3], tf.bool))
    np.testing.assert_array_equal(iou[0], [-1] * 4)
    np.testing.assert_array_equal(matched[0], [0] * 4)
