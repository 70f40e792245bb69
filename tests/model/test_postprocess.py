"""Detections against a slow loop, and the cases in which nothing or too much is found."""

import numpy as np
import pytest
import tensorflow as tf
from reference import box_reference, detection_reference

from tpu_retinamask.errors import SettingError
from tpu_retinamask.model.postprocess import DetectionFilter
from tpu_retinamask.ops.anchors import AnchorGrid
from tpu_retinamask.ops.boxes import CornerBoxCoder, clip_boxes
from tpu_retinamask.structures import AnchorFrame, RawOutputs

_SIZE = (64, 80)
_ANCHORS = AnchorGrid(
    levels=(3, 4, 5), sizes=(16, 24, 40), strides=(8, 16, 32), ratios=(1.0,), scales=(1.0, 1.5)
).anchors(_SIZE)  # 160 + 40 + 12

_CODER = CornerBoxCoder()


def _outputs(seed, batch=2, classes=3, offset=-3.0, spread=1.5):
    rng = np.random.default_rng(seed)
    logits = tuple(
        tf.constant(rng.normal(offset, spread, (batch, len(level), classes)), tf.float32) for level in _ANCHORS
    )
    deltas = tuple(tf.constant(rng.normal(0, 1, (batch, len(level), 4)), tf.float32) for level in _ANCHORS)
    return RawOutputs((), logits, deltas)


def _reference(outputs, b, margin=0.0, **options):
    levels = []
    for logits, deltas, anchors in zip(outputs.class_logits, outputs.box_deltas, _ANCHORS):
        boxes = [
            box_reference.clip(box_reference.corner_box(d, [float(v) for v in a]), _SIZE[0] - margin, _SIZE[1] - margin)
            for d, a in zip(deltas[b].numpy().tolist(), anchors)
        ]
        levels.append((tf.sigmoid(logits[b]).numpy(), np.array(boxes)))
    return detection_reference.filter_detections(levels, **options)


def _assert_equal(found, b, expected):
    boxes, scores, classes, cut = expected
    np.testing.assert_allclose(found.scores[b], scores, rtol=1e-6)
    np.testing.assert_array_equal(found.classes[b], classes)
    np.testing.assert_allclose(found.boxes[b], boxes, atol=1e-4)  # float32 decoding of boxes below 100 pixels
    assert int(found.cut[b]) == cut


@pytest.mark.parametrize("class_specific", [True, False])
@pytest.mark.parametrize(
    "threshold, nms_iou, keep, k",
    [
        (0.05, 0.5, 20, 1000),
        (0.05, 0.5, 300, 1000),
        (0.3, 0.2, 50, 1000),
        (0.05, 0.5, 100, 15),
        (0.02, 0.9, 10, 1),
    ],
)
def test_equals_the_slow_loop(class_specific, threshold, nms_iou, keep, k):
    options = dict(
        score_threshold=threshold,
        nms_iou=nms_iou,
        max_detections=keep,
        top_k_per_level=k,
        class_specific=class_specific,
    )
    outputs = _outputs(int(100 * threshold) + keep + k)
    found = DetectionFilter(**options)(outputs, AnchorFrame(_SIZE, _ANCHORS, _CODER))
    for b in range(2):
        expected = _reference(outputs, b, **options)
        assert (expected[1] > 0).any()
        _assert_equal(found, b, expected)


def test_each_class_has_its_threshold():
    outputs, frame = _outputs(5), AnchorFrame(_SIZE, _ANCHORS, _CODER)
    options = dict(max_detections=400, top_k_per_level=1000)
    least = np.array([0.02, 0.4, 0.15], np.float32)  # the first is below score_threshold, which holds
    of_all = DetectionFilter(**options)(outputs, frame)
    found = DetectionFilter(class_thresholds=tuple(least.tolist()), **options)(outputs, frame)
    for b in range(2):
        scores, classes = of_all.scores[b].numpy(), of_all.classes[b].numpy()
        kept = (classes >= 0) & (scores > np.maximum(least, 0.05)[classes])
        assert 0 < kept.sum() < (classes >= 0).sum()
        count = kept.sum()
        np.testing.assert_array_equal(found.scores[b][:count], scores[kept])
        np.testing.assert_array_equal(found.boxes[b][:count], of_all.boxes[b].numpy()[kept])
        assert (found.classes[b][count:].numpy() == -1).all()
    with pytest.raises(SettingError, match="class_thresholds has 2 numbers, expected one for each of 3 classes"):
        DetectionFilter(class_thresholds=(0.1, 0.2))(outputs, frame)


def test_boxes_are_clipped_as_the_original_does():
    options = dict(score_threshold=0.05, nms_iou=0.5, max_detections=60, top_k_per_level=1000, class_specific=True)
    outputs = _outputs(3)
    found = DetectionFilter(clip_margin=1.0, **options)(outputs, AnchorFrame(_SIZE, _ANCHORS, _CODER))
    for b in range(2):
        _assert_equal(found, b, _reference(outputs, b, margin=1.0, **options))
    assert found.boxes[..., 2].numpy().max() == 79 and found.boxes[..., 3].numpy().max() == 63


@pytest.mark.parametrize("jit_compile", [False, True])
def test_nothing_above_the_threshold(jit_compile):
    outputs = _outputs(4, offset=-20.0)
    function = tf.function(
        lambda o: DetectionFilter(max_detections=7)(o, AnchorFrame(_SIZE, _ANCHORS, _CODER)), jit_compile=jit_compile
    )
    found = function(outputs)
    np.testing.assert_array_equal(found.boxes, np.full((2, 7, 4), -1))
    np.testing.assert_array_equal(found.scores, np.full((2, 7), -1))
    np.testing.assert_array_equal(found.classes, np.full((2, 7), -1))
    np.testing.assert_array_equal(found.cut, [0, 0])


def test_threshold_is_exclusive():
    outputs = RawOutputs((), (tf.zeros([1, 1, 1]),), (tf.zeros([1, 1, 4]),))  # the score is exactly one half
    anchor = [np.array([[2, 3, 20, 30]], np.float32)]
    assert DetectionFilter(score_threshold=0.5)(outputs, AnchorFrame(_SIZE, anchor, _CODER)).scores[0, 0] == -1
    found = DetectionFilter(score_threshold=0.4999)(outputs, AnchorFrame(_SIZE, anchor, _CODER))
    np.testing.assert_array_equal(found.boxes[0, 0], [2, 3, 20, 30])
    assert found.scores[0, 0] == 0.5 and found.classes[0, 0] == 0


def test_fewer_anchors_than_detections():
    outputs = RawOutputs((), (tf.constant([[[3.0, -9.0], [2.0, -9.0]]]),), (tf.zeros([1, 2, 4]),))
    anchors = [np.array([[0, 0, 10, 10], [30, 30, 40, 40]], np.float32)]
    found = DetectionFilter(max_detections=9)(outputs, AnchorFrame(_SIZE, anchors, _CODER))
    np.testing.assert_array_equal(found.classes[0], [0, 0] + [-1] * 7)
    np.testing.assert_array_equal(found.boxes[0, :3], [[0, 0, 10, 10], [30, 30, 40, 40], [-1] * 4])


def test_one_anchor_may_be_two_classes_unless_the_best_alone_counts():
    outputs = RawOutputs((), (tf.constant([[[3.0, 2.0, -9.0]]]),), (tf.zeros([1, 1, 4]),))
    anchors = [np.array([[0, 0, 10, 10]], np.float32)]
    both = DetectionFilter(max_detections=3)(outputs, AnchorFrame(_SIZE, anchors, _CODER))
    np.testing.assert_array_equal(both.classes[0], [0, 1, -1])
    best = DetectionFilter(max_detections=3, class_specific=False)(outputs, AnchorFrame(_SIZE, anchors, _CODER))
    np.testing.assert_array_equal(best.classes[0], [0, -1, -1])


def test_detections_outside_the_image_lose_their_area_but_stay_finite():
    outputs = RawOutputs((), (tf.constant([[[3.0], [2.0]]]),), (tf.zeros([1, 2, 4]),))
    anchors = [np.array([[-40, -40, -20, -10], [100, 100, 140, 150]], np.float32)]
    found = DetectionFilter(max_detections=2)(outputs, AnchorFrame(_SIZE, anchors, _CODER))
    np.testing.assert_array_equal(found.boxes[0], [[0, 0, 0, 0], [80, 64, 80, 64]])


def test_best_come_first_and_a_batch_equals_singles():
    outputs = _outputs(5, batch=3)
    every = DetectionFilter(max_detections=40)(outputs, AnchorFrame(_SIZE, _ANCHORS, _CODER))
    assert (np.diff(every.scores.numpy(), axis=1) <= 0).all()
    for b in range(3):
        one = RawOutputs(
            (),
            tuple(x[b : b + 1] for x in outputs.class_logits),
            tuple(x[b : b + 1] for x in outputs.box_deltas),
        )
        for batched, single in zip(
            every, DetectionFilter(max_detections=40)(one, AnchorFrame(_SIZE, _ANCHORS, _CODER))
        ):
            np.testing.assert_array_equal(batched[b], single[0])


def test_without_suppression_the_best_scores_remain():
    options = dict(score_threshold=0.2, max_detections=30, top_k_per_level=1000, class_specific=True)
    outputs = _outputs(7)
    found = DetectionFilter(nms_iou=None, **options)(outputs, AnchorFrame(_SIZE, _ANCHORS, _CODER))
    for b in range(2):
        _assert_equal(found, b, _reference(outputs, b, nms_iou=1.1, **options))  # an IoU never exceeds 1


@pytest.mark.parametrize("class_specific", [True, False])
def test_detections_say_which_anchor_they_come_from(class_specific):
    outputs = _outputs(8)
    detection_filter = DetectionFilter(max_detections=300, class_specific=class_specific)
    found, anchor = detection_filter.with_anchors(outputs, AnchorFrame(_SIZE, _ANCHORS, _CODER))
    scores = tf.sigmoid(tf.concat(outputs.class_logits, 1)).numpy()
    boxes = _CODER.decode(tf.concat(outputs.box_deltas, 1), np.concatenate(_ANCHORS))
    boxes = clip_boxes(boxes, tf.constant(_SIZE)).numpy()
    for b in range(2):
        real = found.classes[b].numpy() >= 0
        assert real.any() and not real.all()
        rows, classes = anchor[b].numpy(), found.classes[b].numpy()
        np.testing.assert_array_equal(rows[~real], -1)
        np.testing.assert_array_equal(found.scores[b].numpy()[real], scores[b][rows[real], classes[real]])
        np.testing.assert_array_equal(found.boxes[b].numpy()[real], boxes[b][rows[real]])
        if not class_specific:
            assert len(set(rows[real])) == real.sum()
    again, row = detection_filter.from_boxes(boxes, scores)
    for first, second in zip((*found, anchor), (*again, row)):
        np.testing.assert_array_equal(first, second)


def test_no_gradient_flows_back():
    logits, deltas = tf.Variable(tf.ones([1, 12, 2])), tf.Variable(tf.zeros([1, 12, 4]))
    with tf.GradientTape() as tape:
        found = DetectionFilter()(
            RawOutputs((), (logits * 1.0,), (deltas * 1.0,)), AnchorFrame(_SIZE, _ANCHORS[2:], _CODER)
        )
        total = tf.reduce_sum(found.boxes) + tf.reduce_sum(found.scores)
    assert tape.gradient(total, [logits, deltas]) == [None, None]


def test_compiled_equals_eager():
    outputs = _outputs(6)
    detection_filter = DetectionFilter(max_detections=50)
    compiled = tf.function(lambda o: detection_filter(o, AnchorFrame(_SIZE, _ANCHORS, _CODER)), jit_compile=True)(
        outputs
    )
    eager = detection_filter(outputs, AnchorFrame(_SIZE, _ANCHORS, _CODER))
    np.testing.assert_array_equal(compiled.classes, eager.classes)
    np.testing.assert_array_equal(compiled.cut, eager.cut)
    # exp and the logistic function have their own approximations in XLA, a few units in the last place.
    np.testing.assert_allclose(compiled.scores, eager.scores, rtol=1e-5)
    np.testing.assert_allclose(compiled.boxes, eager.boxes, atol=1e-3)


def test_candidates_beside_the_picture_are_not_counted_as_left_out():
    anchors = np.array([[0, 0, 8, 8], [40, 0, 48, 8], [8, 8, 16, 16], [40, 40, 48, 48]], np.float32)
    outputs = RawOutputs(
        (), (tf.constant([[[3.0, 1.0], [4.0, 4.0], [2.0, -9.0], [5.0, 5.0]]]),), (tf.zeros([1, 4, 4]),)
    )
    frame = AnchorFrame((64, 64), [anchors], _CODER)
    for k, cut in ((1, 2), (2, 1), (3, 0), (8, 0)):
        found = DetectionFilter(nms_iou=None, top_k_per_level=k)(outputs, frame, tf.constant([[32, 32]]))
        assert found.cut.numpy().tolist() == [cut]
        assert int(tf.reduce_sum(tf.cast(found.classes >= 0, tf.int32))) == min(k, 3)
