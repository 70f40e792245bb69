"""What was refused around padding and selection: asserts, padding to a size, top-k of nothing."""

import numpy as np
import pytest
import tensorflow as tf
from reference import nms_reference
from what_xla_refuses.support import (
    FEATURE,
    MUCH_FOUND,
    NOTHING_FOUND,
    REGION_CANVAS,
    REGIONS,
    SCENES,
    and_gradient,
    compiled,
    finite,
    largest_gradient,
    refusal,
    refused_by_audit,
    run_compiled,
    set_class_bias,
    uniform,
)

from tpu_retinamask.model.postprocess import DetectionFilter, detect
from tpu_retinamask.ops.losses import mask_loss
from tpu_retinamask.ops.roi_align import multilevel_roi_align
from tpu_retinamask.ops.topk import top_k_anchors
from tpu_retinamask.xla import audit

pytestmark = pytest.mark.ci  # what XLA once refused, each beside what replaced it

# -- Const DT_STRING, pad_to_bounding_box ----------------------------------------------------------


def test_assert_is_dropped_in_silence_so_audit_refuses_it():
    """Row "Const DT_STRING": "Const op with type DT_STRING is not supported by XLA", the text of an Assert.

    2.20 and 2.21 compile it by leaving the check out: what would stop an eager run passes unseen.
    """

    def checked(x):
        tf.debugging.Assert(tf.reduce_all(x > 1.0), ["width must be >= target", x])
        return 2.0 * x

    x = tf.constant([0.5, 2.0])
    with pytest.raises(tf.errors.InvalidArgumentError, match="width must be >= target"):
        checked(x)
    np.testing.assert_array_equal(compiled(checked)(x), [1.0, 4.0])
    assert {"Assert", "Const"} <= refused_by_audit(checked, x)


def test_padding_measured_in_a_map_is_refused():
    """Row "pad_to_bounding_box": padding of a size that the data decide, inside the loop of roi_align_tpu.

    Of fixed size it compiles (2.20, 2.21), of a size measured on the device it cannot.
    """

    def fixed(image):
        return tf.image.pad_to_bounding_box(image, 1, 1, 6, 6)

    def measured(images):
        def each(image):
            return tf.image.pad_to_bounding_box(image, tf.cast(image[0, 0, 0], tf.int32), 0, 6, 6)

        return tf.map_fn(each, images)

    images = tf.ones([2, 3, 3, 1])
    assert compiled(fixed)(images).shape == (2, 6, 6, 1)
    assert "pad_to_bounding_box/Pad" in (message := refusal(measured, images))
    assert "must be a compile-time constant" in message
    assert {"Assert", "Const"} <= refused_by_audit(measured, images)
    assert not refused_by_audit(fixed, images)


def test_regions_are_padded_to_a_fixed_number():
    """Row "pad_to_bounding_box", ours: padding is boxes without area, computed like all, weighing nothing."""
    features, targets = uniform(2, *FEATURE, 3), tf.cast(uniform(2, 5, 14, 14, seed=1) > 0, tf.float32)
    boxes = tf.constant(np.pad(REGIONS, [(0, 0), (0, 3), (0, 0)]), tf.float32)
    valid = tf.constant([[True, True, False, False, False]] * 2)

    def loss_of(rows):
        def loss(features):
            rois = multilevel_roi_align([features], boxes[:, :rows], REGION_CANVAS)
            return mask_loss(tf.reduce_sum(rois, axis=-1), targets[:, :rows], valid[:, :rows])

        return and_gradient(loss)

    value, gradient = run_compiled(loss_of(5), features)
    old_value, old_gradient = loss_of(2)(features)  # eagerly, without any padding
    np.testing.assert_allclose(value, old_value, rtol=1e-5)
    np.testing.assert_allclose(gradient, old_gradient, rtol=1e-4, atol=1e-6)
    assert np.abs(gradient).max() > 1e-3


# -- TopKV2_grad "Requires delta != 0" -------------------------------------------------------------


def test_top_k_of_nothing_has_no_gradient():
    """Row "TopKV2_grad, Requires delta != 0: 0": never memory, but the gradient of top_k over zero rows.

    Its gradient takes range(0, m * n, n), and n = 0 where no score passed: eagerly and compiled.
    """

    def best(scores):
        return tf.reduce_sum(tf.math.top_k(scores, scores.shape[0])[0])

    for run in (and_gradient(best), compiled(and_gradient(best))):
        with pytest.raises(tf.errors.InvalidArgumentError, match="Requires delta != 0: 0"):
            run(tf.zeros([0]))
        np.testing.assert_array_equal(run(tf.constant([3.0, 1.0]))[1], [1.0, 1.0])


def test_top_k_of_what_a_threshold_left_is_refused():
    """Row "TopKV2_grad", as it stood: the number of rows left is k, which the compiler cannot know."""

    def best(scores):
        left = tf.boolean_mask(scores, scores > 0.05)
        return tf.reduce_sum(tf.math.top_k(left, tf.minimum(3, tf.shape(left)[0]))[0])

    scores = tf.constant([0.9, 0.01, 0.3, 0.2, 0.1])
    assert "must be a compile-time constant" in refusal(and_gradient(best), scores)
    assert {"Where", "TopKV2"} <= refused_by_audit(best, scores)


@pytest.mark.parametrize("score", [0.9, 0.01], ids=["some above", "all below"])
def test_top_k_of_masked_scores_has_a_gradient(score):
    """Row "TopKV2_grad", ours: k is fixed whatever the scores, also where it exceeds the candidates."""
    scores = tf.constant([[[0.01, score], [0.02, 0.03], [score / 3, 0.0]]])

    def best(scores):
        found, anchor, classes = top_k_anchors(scores, 8)
        return tf.reduce_sum(found * tf.cast(found > 0.05, tf.float32)), anchor, classes

    def total_and_gradient(scores):
        with tf.GradientTape() as tape:
            tape.watch(scores)
            total, anchor, classes = best(scores)
        return total, tape.gradient(total, scores), anchor, classes

    total, gradient, anchor, classes = run_compiled(total_and_gradient, scores)
    above = np.where(scores > 0.05, scores, 0.0)
    assert total == pytest.approx(above.sum(), rel=1e-6, abs=0)
    np.testing.assert_array_equal(gradient, above > 0)
    assert sorted(zip(anchor[0], classes[0])) == [(i, j) for i in range(3) for j in range(2)]


@pytest.mark.parametrize("highest", [0.95, 0.04], ids=["some above", "all below"])
@pytest.mark.parametrize("class_specific", [True, False])
def test_detections_of_nothing_are_padding(highest, class_specific):
    """Row "TopKV2_grad", ours: fixed k, selection without gradient, right with no detection at all."""
    random = np.random.default_rng(0)
    corner = random.uniform(0, 40, (2, 12, 2))
    boxes = np.concatenate([corner, corner + random.uniform(10, 24, (2, 12, 2))], axis=-1).astype(np.float32)
    logits = np.log(highest * random.permutation(72).reshape(2, 12, 3) / 72 + 1e-3).astype(np.float32)
    detections = DetectionFilter(max_detections=50, class_specific=class_specific)

    def find(logits):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            found, row = detections.from_boxes(tf.constant(boxes), tf.exp(logits))
            total = tf.reduce_sum(logits**2) + tf.reduce_sum(found.boxes) + tf.reduce_sum(found.scores)
        return found.scores, found.classes, row, tape.gradient(total, logits)

    scores, classes, row, gradient = run_compiled(find, tf.constant(logits))
    np.testing.assert_allclose(gradient, 2 * logits, rtol=1e-6)  # nothing flowed back through the selection
    for image in range(2):
        pairs = [
            (np.exp(logits[image, anchor, label]), label, anchor)
            for anchor in range(12)
            for label in range(3)
            if class_specific or label == logits[image, anchor].argmax()
        ]
        pairs = sorted((pair for pair in pairs if pair[0] > 0.05), reverse=True)
        kept = nms_reference.nms(
            boxes[image][[pair[2] for pair in pairs]],
            np.ones(len(pairs), bool),
            0.5,
            [pair[1] for pair in pairs] if class_specific else None,
        )
        survivors = [pair for pair, keep in zip(pairs, kept) if keep]
        expected = np.array(survivors + [(-1, -1, -1)] * (50 - len(survivors)))
        np.testing.assert_array_equal(np.stack([classes[image], row[image]], axis=-1), expected[:, 1:])
        np.testing.assert_allclose(scores[image], expected[:, 0], rtol=1e-6)
        assert (len(survivors) == 0) == (highest < 0.05)


def test_the_step_learns_where_nothing_was_found(runs):
    """Row "TopKV2_grad", ours: the step with all scores below the threshold; masks learn from the boxes."""
    metrics, gradients = runs.scenes["scores below the threshold"].compiled
    assert metrics["mask_rois"] == 8 + 3 and metrics["mask_loss"] > 0
    assert runs.scenes["objects"].compiled[0]["mask_rois"] > 8 + 3  # there detections joined the boxes
    for part in ("roi_mask", "pyramid_regression", "pyramid_classification", "backbone"):
        assert largest_gradient(gradients, part) > 0, part


def test_detections_of_the_network_with_nothing_to_find(step):
    """Row "TopKV2_grad", ours, in use: nothing but padding and empty masks; or detections and masks."""
    image, content_size = SCENES["objects"][1][:2]
    found = compiled(
        lambda image, content_size: detect(step.model, DetectionFilter(max_detections=20), image, content_size)
    )
    audit.check(found.get_concrete_function(image, content_size))
    set_class_bias(step.model, NOTHING_FOUND)
    nothing = finite(found(image, content_size))
    for field in (nothing.boxes, nothing.scores, nothing.classes):
        np.testing.assert_array_equal(field, np.full(field.shape, -1))
    assert nothing.boxes.shape == (2, 20, 4) and not nothing.masks.any() and not nothing.cut.any()
    set_class_bias(step.model, MUCH_FOUND)
    much = finite(found(image, content_size))
    assert (much.classes >= 0).all() and (much.scores > 0.05).all() and much.masks.min(axis=(2, 3)).all()
