"""Every operation that was refused (docs/what_xla_refuses.md): its construct today, and ours.

Each row has the old construct in its smallest form, which the compiler still refuses or has since learned to
accept (tried with TensorFlow 2.20 and 2.21), and what this project does in its place: it compiles, the audit
passes it, its gradients are finite and its numbers are those of NumPy or of the old construct run eagerly.
The compiler here is that of the CPU. Where an error was the TPU's, `xla.audit` stands in for it, which
reads the graph and needs no TPU; the TPU compiler's own word belongs to a check of its own.
"""

import numpy as np
import pytest
import tensorflow as tf
from what_xla_refuses.support import (
    FEATURE,
    REGION_CANVAS,
    REGIONS,
    SAME_NUMBER,
    SCENES,
    and_gradient,
    compiled,
    has_no_kernel,
    op_types,
    refusal,
    refused_by_audit,
    run_compiled,
    uniform,
)

from tpu_retinamask.ops.losses import mask_loss, smooth_l1_loss
from tpu_retinamask.ops.masks import crop_masks
from tpu_retinamask.ops.resize import conv3x3_after_upsample, upsample_nearest
from tpu_retinamask.ops.roi_align import IMPLEMENTATIONS, multilevel_roi_align
from tpu_retinamask.xla import audit

pytestmark = pytest.mark.ci  # what XLA once refused, each beside what replaced it

# -- Where -----------------------------------------------------------------------------------------


def test_where_compiles_today_but_audit_refuses_it():
    """Row "Where": "No registered 'Where' OpKernel for XLA_CPU_JIT", a gather of the positives.

    2.20 and 2.21 compile it for a CPU, to a tensor padded to all elements with its size beside it. It is
    refused here because a TPU makes a dynamic shape of it, and because the mean of no rows is not a number.
    """

    def mean_of_positives(losses, state):
        return tf.reduce_mean(tf.gather_nd(losses, tf.where(tf.equal(state, 1.0))))

    losses, state = tf.constant([1.0, 2.0, 3.0, 4.0]), tf.constant([0.0, 1.0, -1.0, 1.0])
    value, gradient = compiled(and_gradient(mean_of_positives))(losses, state)
    assert float(value) == 3.0
    np.testing.assert_array_equal(gradient, [0.0, 0.5, 0.0, 0.5])
    assert np.isnan(compiled(mean_of_positives)(losses, tf.zeros([4])))
    assert {"Where", "GatherNd"} <= refused_by_audit(mean_of_positives, losses, state)


def test_masked_sum_in_place_of_where():
    """Row "Where", ours: all anchors stay, those that are not positive weigh nothing."""
    predicted, target = uniform(2, 5, 4, seed=1), uniform(2, 5, 4, seed=2)
    for positive in ([[1, 0, 0, 1, 0], [0, 0, 1, 0, 0]], [[0] * 5] * 2):
        positive = np.array(positive, bool)
        value, gradient = run_compiled(and_gradient(smooth_l1_loss), predicted, target, tf.constant(positive))
        difference = (predicted.numpy() - target.numpy()).astype(np.float64)[positive]
        size = np.abs(difference)
        expected = np.where(size < 1 / 9, 4.5 * size**2, size - 1 / 18).sum()
        assert value == pytest.approx(expected, rel=1e-6, abs=0)
        slopes = np.zeros((2, 5, 4))
        slopes[positive] = np.clip(9 * difference, -1, 1)
        np.testing.assert_allclose(gradient, slopes, rtol=1e-5)


# -- StringFormat, PrintV2 -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values, op_type", [(["loss is large"], "PrintV2"), (["loss", None], "StringFormat")], ids=["text", "tensor"]
)
def test_print_is_refused(values, op_type):
    """Rows "StringFormat" and "PrintV2": tf.print in the step; the compiler stops at the first of the two."""

    def prints(x):
        tf.print(*(x if value is None else value for value in values))
        return tf.reduce_sum(x)

    assert has_no_kernel(op_type, refusal(prints, tf.ones([3])))
    assert op_type in refused_by_audit(prints, tf.ones([3]))


def test_metrics_are_returned_not_printed(step, runs):
    """Rows "StringFormat", "PrintV2", ours: what is to be seen is returned, and equals the plain step's."""
    metrics, _ = runs.scenes["objects"].compiled
    assert {"loss", "class_loss", "box_loss", "mask_loss", "gradient_norm", "num_positive"} <= metrics.keys()
    assert all(value.shape == () and value.dtype == np.float32 for value in metrics.values())
    assert metrics["loss"] == pytest.approx(runs.scenes["objects"].plain[0]["loss"], **SAME_NUMBER)
    audit.check(step.compiled.get_concrete_function(SCENES["objects"][1]))  # the step as a whole


# -- ResizeNearestNeighborGrad ---------------------------------------------------------------------


def nearest(x, size=(6, 6)):
    """The original's resize: source = floor(i * in / out), not at the centres as TensorFlow 2 has it."""
    return tf.raw_ops.ResizeNearestNeighbor(images=x, size=size)


def squares(resize):
    return lambda x: tf.reduce_sum(resize(x) ** 2)  # of a plain sum the gradient is a constant, folded away


def test_gradient_of_nearest_resize_is_refused():
    """Row "ResizeNearestNeighborGrad" (P4_upsampled): forward compiles, its gradient has no kernel."""
    x = uniform(1, 3, 3, 2)
    assert compiled(nearest)(x).shape == (1, 6, 6, 2)
    assert has_no_kernel("ResizeNearestNeighborGrad", refusal(and_gradient(squares(nearest)), x))
    assert refused_by_audit(and_gradient(squares(nearest)), x) == {"ResizeNearestNeighborGrad"}


def test_gradient_of_nearest_resize_in_a_map_is_refused():
    """Row "ResizeNearestNeighborGrad" (roi_mask_upsample): the same in a loop over the regions."""

    def mapped(rois):
        return tf.map_fn(nearest, rois)

    rois = uniform(2, 4, 3, 3, 1)
    assert has_no_kernel("ResizeNearestNeighborGrad", refusal(and_gradient(squares(mapped)), rois))
    assert "ResizeNearestNeighborGrad" in refused_by_audit(and_gradient(squares(mapped)), rois)


@pytest.mark.parametrize("source, size", [((3, 4), (6, 8)), ((4, 5), (7, 9)), ((1, 2), (1, 3))])
def test_upsampling_by_reshape_has_the_same_gradient(source, size):
    """Row "ResizeNearestNeighborGrad", ours in the pyramid; its sides are odd wherever the canvas' are."""
    x, weight = uniform(2, *source, 3), uniform(2, *size, 3, seed=1)

    def weighted(resize):
        return and_gradient(lambda x: tf.reduce_sum(weight * resize(x, size) ** 2))

    value, gradient = run_compiled(weighted(upsample_nearest), x)
    old_value, old_gradient = weighted(nearest)(x)  # eagerly
    assert value == pytest.approx(float(old_value), rel=1e-5)
    np.testing.assert_allclose(gradient, old_gradient, rtol=1e-5, atol=1e-6)


def test_mask_upsampling_folds_regions_into_the_batch():
    """Row "ResizeNearestNeighborGrad", ours in the mask head: no loop over B, up-sampling and 3x3 are one."""
    rois, kernel = uniform(2, 4, 3, 3, 5), uniform(3, 3, 5, 4, seed=1)

    def folded(rois):
        return tf.reduce_sum(conv3x3_after_upsample(tf.reshape(rois, [8, 3, 3, 5]), kernel) ** 2)

    def mapped(rois):
        each = tf.map_fn(lambda image: tf.nn.conv2d(nearest(image), kernel, 1, "SAME"), rois)
        return tf.reduce_sum(each**2)

    value, gradient = run_compiled(and_gradient(folded), rois)
    old_value, old_gradient = and_gradient(mapped)(rois)
    assert value == pytest.approx(float(old_value), rel=1e-5)
    np.testing.assert_allclose(gradient, old_gradient, rtol=1e-4, atol=1e-4)


# -- FakeParam -------------------------------------------------------------------------------------


def mask_loss_by_cond(logits, targets, valid):
    """The mean over the valid regions, mapped one by one if there are any (mask_conditional)."""

    def each(pair):
        return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(pair[1], pair[0]))

    def mean():
        losses = tf.map_fn(each, (logits, targets), fn_output_signature=tf.float32)
        weight = tf.cast(valid, tf.float32)
        return tf.reduce_sum(losses * weight) / tf.reduce_sum(weight)

    return tf.cond(tf.reduce_any(valid), mean, lambda: 0.0 * tf.reduce_sum(logits))


def mask_loss_of_ours(logits, targets, valid):
    return tf.reduce_sum(mask_loss(logits[None], targets[None], valid[None]))


def test_gradient_of_a_map_in_a_cond_is_refused():
    """Row "FakeParam, mask_conditional": the branch not taken stands in for a TensorList by a variant.

    It was told by XLA_CPU_JIT and from XLA_TPU_JIT. The CPU's compiler says the same today; for the
    TPU the audit refuses the construct here, which reads the graph.
    """
    args = uniform(3, 2, 2), tf.abs(uniform(3, 2, 2, seed=1)), tf.constant([True, False, True])
    message = refusal(and_gradient(mask_loss_by_cond), *args)
    assert has_no_kernel("FakeParam", message)
    assert "(OpKernel was found, but attributes didn't match)" in message and "dtype=DT_VARIANT" in message
    refused = refused_by_audit(and_gradient(mask_loss_by_cond), *args)
    assert "FakeParam" in refused and any("TensorList" in op_type for op_type in refused)


@pytest.mark.parametrize("valid", [[True, False, True], [False] * 3], ids=["some", "none"])
def test_padded_and_masked_in_place_of_cond(valid):
    """Row "FakeParam, mask_conditional", ours: every region is computed, those that do not count weigh 0."""
    args = uniform(3, 2, 2), tf.abs(uniform(3, 2, 2, seed=1)), tf.constant(valid)
    value, gradient = run_compiled(and_gradient(mask_loss_of_ours), *args)
    old_value, old_gradient = and_gradient(mask_loss_by_cond)(*args)
    assert value == pytest.approx(float(old_value), rel=1e-6, abs=0)
    np.testing.assert_allclose(gradient, old_gradient, rtol=1e-5)
    assert any(valid) or (value == 0.0 and not gradient.any())


def test_the_step_has_no_branch(step):
    """Row "FakeParam, mask_conditional", ours: no cond in the step, its gradient or its functions."""
    kinds = op_types(step.compiled.get_concrete_function(SCENES["objects"][1]).graph.as_graph_def())
    assert "Conv2DBackpropFilter" in kinds  # the walk saw the backward pass
    assert not {"If", "StatelessIf", "Case", "StatelessCase", "Switch", "Merge", "FakeParam"} & kinds


# -- CropAndResize ---------------------------------------------------------------------------------


def crop(features, boxes):
    return tf.image.crop_and_resize(features, boxes, tf.zeros([boxes.shape[0]], tf.int32), [2, 2])


@pytest.mark.parametrize("op_type", ["CropAndResize", "CropAndResizeGradImage", "CropAndResizeGradBoxes"])
def test_crop_and_resize_is_refused(op_type):
    """Rows "CropAndResize", "...GradImage", "...GradBoxes": crops of regions and of masks.

    The compiler stops at the first operation it does not know, so each of the three is compiled alone.
    """
    features, boxes, index = uniform(1, 4, 4, 1), tf.constant([[0.0, 0.1, 0.9, 1.0]]), tf.zeros([1], tf.int32)
    grads = tf.ones([1, 2, 2, 1])
    alone = {
        "CropAndResize": lambda: crop(features, boxes),
        "CropAndResizeGradImage": lambda: tf.raw_ops.CropAndResizeGradImage(
            grads=grads, boxes=boxes, box_ind=index, image_size=[1, 4, 4, 1], T=tf.float32
        ),
        "CropAndResizeGradBoxes": lambda: tf.raw_ops.CropAndResizeGradBoxes(
            grads=grads, image=features, boxes=boxes, box_ind=index
        ),
    }
    assert has_no_kernel(op_type, refusal(alone[op_type]))

    def both_gradients(features, boxes):
        return tf.gradients(crop(features, boxes), [features, boxes])

    assert op_type in refused_by_audit(both_gradients, features, boxes)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_roi_align_has_the_numbers_of_crop_and_resize(implementation):
    """Rows "CropAndResize", "...GradImage", ours: features sampled with differentiable operations."""
    features, weight = uniform(2, *FEATURE, 3), uniform(2, 2, 14, 14, 3, seed=1)
    boxes = tf.constant(REGIONS, tf.float32)

    def ours(features):
        rois = multilevel_roi_align(
            [features], boxes, REGION_CANVAS, semantics="crop_and_resize", implementation=implementation
        )
        return tf.reduce_sum(weight * rois)

    def old(features):  # the original's: linspace(y1 h / H, y2 h / H - 1, 14), as shares of the last cell
        cells, canvas = np.tile(FEATURE, 2), np.tile(REGION_CANVAS, 2)
        shares = (REGIONS.reshape(4, 4)[:, [1, 0, 3, 2]] * cells / canvas - [0, 0, 1, 1]) / (cells - 1)
        crops = tf.image.crop_and_resize(features, tf.constant(shares, tf.float32), [0, 0, 1, 1], [14, 14])
        return tf.reduce_sum(weight * tf.reshape(crops, [2, 2, 14, 14, 3]))

    value, gradient = run_compiled(and_gradient(ours), features)
    old_value, old_gradient = and_gradient(old)(features)  # eagerly
    assert value == pytest.approx(float(old_value), rel=1e-4)
    np.testing.assert_allclose(gradient, old_gradient, rtol=1e-4, atol=1e-4)
    assert np.abs(gradient).max() > 0.1


def test_no_gradient_reaches_the_boxes_of_a_crop():
    """Row "CropAndResizeGradBoxes", ours: boxes are not learnt through the crop, nor are mask targets."""
    features, boxes = uniform(2, *FEATURE, 3), tf.constant(REGIONS, tf.float32)
    masks = tf.ones([2, 2, 8, 8], tf.uint8)

    def gradients(features, boxes):
        with tf.GradientTape() as tape:
            tape.watch([features, boxes])
            rois = multilevel_roi_align([features], boxes, REGION_CANVAS)
            targets = tf.stop_gradient(crop_masks(masks, boxes, boxes, tf.constant([[0, 1]] * 2), 14))
            total = tf.reduce_sum(rois * targets[..., None])
        by_features, by_boxes = tape.gradient(total, [features, boxes])
        assert by_boxes is None
        return by_features

    # Every mask is full, so every target is 1; each of 14 x 14 bins spreads a weight of 1 over the features.
    gradient = run_compiled(gradients, features, boxes)
    assert gradient.sum() == pytest.approx(2 * 2 * 14 * 14 * 3, rel=1e-5)
