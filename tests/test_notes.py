"""Every failure in the notes of the original (docs/failures-of-the-notes.md): its construct today, and ours.

Each row has the old construct in its smallest form, which the compiler still refuses or has since learned to
accept (tried with TensorFlow 2.20 and 2.21), and what this project does in its place: it compiles, the audit
passes it, its gradients are finite and its numbers are those of NumPy or of the old construct run eagerly.
The compiler here is that of the CPU. Where the notes quote the TPU's, `xla.audit` stands in for it, which
reads the graph and needs no TPU; the TPU compiler's own word belongs to the tests of tpu_check.
"""

import pathlib
import re
import types
import warnings

import h5py
import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from reference import nms_reference, scenes

from tpu_retinamask.compat.weights import load_weights, model_layers
from tpu_retinamask.data.annotations import read_annotations, read_classes
from tpu_retinamask.data.augment import Augmentation
from tpu_retinamask.data.pipeline import InputPipeline
from tpu_retinamask.data.scan import scan_records
from tpu_retinamask.model.backbone import NORMALIZATIONS, make_backbone
from tpu_retinamask.model.losses import Criterion
from tpu_retinamask.model.postprocess import DetectionFilter, detect
from tpu_retinamask.model.retinamask import RetinaMask
from tpu_retinamask.ops.anchors import AnchorGrid
from tpu_retinamask.ops.boxes import CornerBoxCoder
from tpu_retinamask.ops.images import normalize_images
from tpu_retinamask.ops.losses import mask_loss, smooth_l1_loss
from tpu_retinamask.ops.masks import crop_masks
from tpu_retinamask.ops.resize import conv3x3_after_upsample, upsample_nearest
from tpu_retinamask.ops.roi_align import IMPLEMENTATIONS, multilevel_roi_align
from tpu_retinamask.ops.topk import top_k_anchors
from tpu_retinamask.structures import Batch
from tpu_retinamask.training.debug import debug_step
from tpu_retinamask.training.step import compile_step, make_train_step
from tpu_retinamask.xla import audit

CANVAS, ROWS, MASK_SIDE, CLASSES = (64, 64), 100, 28, 3
ODD_CANVAS = (101, 131)
NOTHING_FOUND, MUCH_FOUND = -20.0, -1.0  # class biases: every score far below 0.05, or far above
CRITERION = Criterion(mask_rois=24, mask_rois_from_detections=20)

# XLA sums in another order than the single kernels: float32 sums of 10^5 terms through some 30 layers.
SAME_NUMBER = dict(rel=2e-5, abs=1e-7)
GRADIENT_ROUNDING = 3e-4  # of the largest element: the terms of a gradient cancel in part


# -- helpers: the compiler's word on the old construct, and what ours has to pass ------------------


def compiled(function):
    return tf.function(function, jit_compile=True, autograph=False)


def refusal(function, *args) -> str:
    """What the compiler says against a function; fails if it has nothing to say."""
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        compiled(function)(*args)
    return str(caught.value)


def has_no_kernel(op_type: str, message: str) -> bool:
    """Whether a message is of the notes' kind: "No registered 'Where' OpKernel for XLA_CPU_JIT devices"."""
    return re.search(rf"No registered '{op_type}' OpKernel for XLA_[CG]PU_JIT devices", message) is not None


def refused_by_audit(function, *args) -> set:
    """The types of the operations that must not be in a compiled step."""
    return {finding.op_type for finding in audit.audit(compiled(function).get_concrete_function(*args))}


def run_compiled(function, *args):
    """Compile one of our functions, audit it and run it; return finite arrays."""
    function = compiled(function)
    audit.check(function.get_concrete_function(*args))
    return finite(function(*args))


def op_types(graph_def) -> set:
    """The types of a graph's operations, and of those of every function that they call."""
    return {node.op for node in graph_def.node} | {
        node.op for function in graph_def.library.function for node in function.node_def}


def finite(values):
    values = tf.nest.map_structure(np.asarray, values)
    assert all(np.isfinite(value).all() for value in tf.nest.flatten(values))
    return values


def and_gradient(function):
    """Turn f(x, ...) into a function that also returns the gradient of f's sum by x."""

    def run(x, *rest):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = function(x, *rest)
        return value, tf.convert_to_tensor(tape.gradient(value, x))

    return run


def uniform(*shape, seed=0) -> tf.Tensor:
    return tf.constant(np.random.default_rng(seed).uniform(-1, 1, shape), tf.float32)


# -- fixtures: one small network and its whole training step, compiled once for all scenes ---------


def small_model(**options) -> RetinaMask:
    keras.utils.set_random_seed(0)
    return RetinaMask(CLASSES, **{
        "backbone": "small", "normalization": "frozen", "pixel_mode": "torch", "fpn_channels": 16,
        "head_channels": 16, "head_depth": 1, "head_initializer": "he_normal", "mask_channels": 16,
        "mask_depth": 1, **options}).create_weights()


def set_class_bias(model, value: float):
    bias = model.class_head.last.bias
    bias.assign(tf.fill(bias.shape, value))


@pytest.fixture(scope="module")
def step():
    """The training step of a small network: `plain` and `compiled`, Batch -> (metrics, {path: gradient})."""
    model = small_model()
    optimizer = keras.optimizers.SGD(0.0)  # the weights stay, so that every scene starts from the same ones
    optimizer.build(model.trainable_variables)
    seen = {}
    train_step = make_train_step(model, CRITERION, optimizer, probe=seen.__setitem__)

    def step_and_gradients(batch):
        seen.clear()
        metrics = train_step(batch)
        return metrics, {name: value for name, value in seen.items() if name.startswith("gradient of ")}

    return types.SimpleNamespace(model=model, plain=step_and_gradients,
                                 compiled=compile_step(step_and_gradients))


def scene(*counts, side=(8, 32), seed=0, canvas=CANVAS, rows=ROWS) -> Batch:
    return scenes.random_batch(seed, size=canvas, counts=counts, num_boxes=rows, num_classes=CLASSES,
                               mask_side=MASK_SIDE, side=side)


def padding_images() -> Batch:
    """A batch of the images that fill up the last batch of an evaluation: black, and of no size."""
    batch = scene(0, 0)
    return batch._replace(image=tf.zeros_like(batch.image), content_size=tf.zeros_like(batch.content_size),
                          image_id=tf.fill([2], tf.constant(-1, tf.int64)))


def one_pixel_boxes() -> Batch:
    batch = scene(6, 3)
    corner = tf.floor(batch.boxes[..., :2])
    boxes = tf.concat([corner, corner + 1.0], axis=-1) * tf.cast(batch.classes >= 0, tf.float32)[..., None]
    return batch._replace(boxes=boxes)


SCENES = {
    "objects": (MUCH_FOUND, scene(8, 3)),
    "scores below the threshold": (NOTHING_FOUND, scene(8, 3)),
    "no boxes": (MUCH_FOUND, scene(0, 0)),
    "no boxes and no scores": (NOTHING_FOUND, scene(0, 0)),
    "one image without boxes": (MUCH_FOUND, scene(0, 5)),
    "every image empty": (MUCH_FOUND, padding_images()),
    "one-pixel boxes": (MUCH_FOUND, one_pixel_boxes()),
    "boxes without masks": (MUCH_FOUND, scene(8, 3)._replace(has_mask=tf.zeros([2, ROWS], tf.bool))),
    "every row taken": (MUCH_FOUND, scene(ROWS, ROWS)._replace(dropped=tf.constant([31, 1]))),
}


@pytest.fixture(scope="module")
def runs(step):
    """Metrics and gradients of every scene, compiled and plain; how often the compiled step was traced."""
    found = {}
    for name, (class_bias, batch) in SCENES.items():
        set_class_bias(step.model, class_bias)
        found[name] = types.SimpleNamespace(compiled=tf.nest.map_structure(np.asarray, step.compiled(batch)),
                                            plain=tf.nest.map_structure(np.asarray, step.plain(batch)))
    return types.SimpleNamespace(scenes=found, traces=step.compiled.experimental_get_tracing_count())


def assert_same_step(compiled_result, plain_result):
    (metrics, gradients), (plain_metrics, plain_gradients) = finite(compiled_result), finite(plain_result)
    assert metrics.keys() == plain_metrics.keys() and gradients.keys() == plain_gradients.keys()
    for name, value in metrics.items():
        assert value == pytest.approx(plain_metrics[name], **SAME_NUMBER), name
    for name, gradient in gradients.items():
        largest = max(np.abs(plain_gradients[name]).max(), 1e-6)
        np.testing.assert_allclose(gradient, plain_gradients[name], rtol=0, atol=GRADIENT_ROUNDING * largest,
                                   err_msg=name)


def largest_gradient(gradients, part: str) -> float:
    return max(np.abs(value).max() for name, value in gradients.items() if part in name)


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
        expected = np.where(size < 1 / 9, 4.5 * size ** 2, size - 1 / 18).sum()
        assert value == pytest.approx(expected, rel=1e-6, abs=0)
        slopes = np.zeros((2, 5, 4))
        slopes[positive] = np.clip(9 * difference, -1, 1)
        np.testing.assert_allclose(gradient, slopes, rtol=1e-5)


# -- StringFormat, PrintV2 -------------------------------------------------------------------------


@pytest.mark.parametrize("values, op_type", [
    (["loss is large"], "PrintV2"), (["loss", None], "StringFormat")], ids=["text", "tensor"])
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
    rois, kernel, bias = uniform(2, 4, 3, 3, 5), uniform(3, 3, 5, 4, seed=1), uniform(4, seed=2)

    def folded(rois):
        return tf.reduce_sum(conv3x3_after_upsample(tf.reshape(rois, [8, 3, 3, 5]), kernel, bias) ** 2)

    def mapped(rois):
        each = tf.map_fn(lambda image: tf.nn.conv2d(nearest(image), kernel, 1, "SAME") + bias, rois)
        return tf.reduce_sum(each ** 2)

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

    The notes have it from XLA_CPU_JIT and from XLA_TPU_JIT. The CPU's compiler says the same today; for the
    TPU the audit refuses the construct here, and tpu_check asks the TPU's compiler itself.
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

FEATURE, REGION_CANVAS = (9, 11), (72, 88)
REGIONS = np.array([[[6, 9, 61, 52], [20.5, 8.25, 70, 40]], [[5, 4, 30, 66], [9, 7, 41, 39]]])


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
            grads=grads, boxes=boxes, box_ind=index, image_size=[1, 4, 4, 1], T=tf.float32),
        "CropAndResizeGradBoxes": lambda: tf.raw_ops.CropAndResizeGradBoxes(
            grads=grads, image=features, boxes=boxes, box_ind=index)}
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
        rois = multilevel_roi_align([features], boxes, REGION_CANVAS, semantics="crop_and_resize",
                                    implementation=implementation)
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
            total = tf.reduce_sum(logits ** 2) + tf.reduce_sum(found.boxes) + tf.reduce_sum(found.scores)
        return found.scores, found.classes, row, tape.gradient(total, logits)

    scores, classes, row, gradient = run_compiled(find, tf.constant(logits))
    np.testing.assert_allclose(gradient, 2 * logits, rtol=1e-6)  # nothing flowed back through the selection
    for image in range(2):
        pairs = [(np.exp(logits[image, anchor, label]), label, anchor)
                 for anchor in range(12) for label in range(3)
                 if class_specific or label == logits[image, anchor].argmax()]
        pairs = sorted((pair for pair in pairs if pair[0] > 0.05), reverse=True)
        kept = nms_reference.nms(boxes[image][[pair[2] for pair in pairs]], np.ones(len(pairs), bool), 0.5,
                                 [pair[1] for pair in pairs] if class_specific else None)
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
    found = compiled(lambda image, content_size: detect(step.model, DetectionFilter(max_detections=20), image,
                                                        content_size))
    audit.check(found.get_concrete_function(image, content_size))
    set_class_bias(step.model, NOTHING_FOUND)
    nothing = finite(found(image, content_size))
    for field in (nothing.boxes, nothing.scores, nothing.classes):
        np.testing.assert_array_equal(field, np.full(field.shape, -1))
    assert nothing.boxes.shape == (2, 20, 4) and not nothing.masks.any() and not nothing.cut.any()
    set_class_bias(step.model, MUCH_FOUND)
    much = finite(found(image, content_size))
    assert (much.classes >= 0).all() and (much.scores > 0.05).all() and much.masks.min(axis=(2, 3)).all()


# -- PyFunc ----------------------------------------------------------------------------------------


def dataset_ops(dataset: tf.data.Dataset) -> set:
    return op_types(tf.compat.v1.GraphDef.FromString(dataset._as_serialized_graph().numpy()))


@pytest.fixture
def crowd(tmp_path):
    """Records of a picture of 120 instances and of one without any, read from files as a user has them."""
    labels = np.zeros(CANVAS, np.uint8)
    rows = []
    for number in range(120):
        y, x = 5 * (number // 12) + 2, 5 * (number % 12) + 1
        labels[y:y + 4, x:x + 4] = number + 1
        rows.append(f"crowd.png,{x},{y},{x + 4},{y + 4},c{number % CLASSES},labels.png#{number + 1}")
    random = np.random.default_rng(0)
    for name in ("crowd.png", "bare.png"):
        PIL.Image.fromarray(random.integers(0, 256, (*CANVAS, 3), np.uint8)).save(tmp_path / name)
    PIL.Image.fromarray(labels).save(tmp_path / "labels.png")
    (tmp_path / "train.csv").write_text("\n".join([*rows, "bare.png,,,,,,"]))
    (tmp_path / "classes.csv").write_text("c0,0\nc1,1\nc2,2\n")
    classes = read_classes(str(tmp_path / "classes.csv"))
    return scan_records(read_annotations(str(tmp_path / "train.csv"), classes)).records


def pipeline(**options) -> InputPipeline:
    return InputPipeline(image_size=CANVAS, max_instances=ROWS, mask_size=MASK_SIDE, **options)


@pytest.mark.parametrize("call, op_type", [(tf.numpy_function, "PyFunc"), (tf.py_function, "EagerPyFunc")])
def test_python_in_a_graph_is_refused(call, op_type):
    """Row "PyFunc": "No registered 'PyFunc' OpKernel", a Python generator fed to a remote device."""
    def python(x):
        return call(lambda value: value, [x], tf.float32)

    assert has_no_kernel(op_type, refusal(python, tf.ones([2])))
    assert op_type in refused_by_audit(python, tf.ones([2]))
    number = tf.TensorSpec([], tf.int32)
    generator = tf.data.Dataset.from_generator(lambda: iter([1]), output_signature=number)
    mapped = tf.data.Dataset.range(2).map(lambda x: python(tf.cast(x, tf.float32)))
    assert "PyFunc" in dataset_ops(generator) and op_type in dataset_ops(mapped)


def test_the_input_pipeline_holds_no_python(crowd):
    """Row "PyFunc", ours: from file names to batches, native operations only."""
    everything = Augmentation(horizontal_flip=0.5, vertical_flip=0.5, rot90=0.5, scale_jitter=(0.5, 2.0),
                              brightness=0.1, contrast=0.1)
    for dataset in (pipeline(augmentation=everything).train_dataset(crowd, 2),
                    pipeline(augmentation=everything, cache=True).train_dataset(crowd, 2),
                    pipeline().eval_dataset(crowd, 2)):
        used = dataset_ops(dataset)
        assert {"DecodePng", "ScaleAndTranslate", "BatchDatasetV2"} <= used  # the walk saw the functions
        assert not {op_type for op_type in used if "PyFunc" in op_type or "Generator" in op_type}


def test_more_than_m_instances_are_counted_and_train(step, runs, crowd):
    """Row "PyFunc", ours, with what kills other detectors: 120 instances meet 100 rows, 20 are counted."""
    for dataset in (pipeline(augmentation=None).train_dataset(crowd, 2), pipeline().eval_dataset(crowd, 2)):
        batch = next(iter(dataset))
        full = int(np.argmax(batch.dropped))  # the training stream has an order of its own
        assert sorted(batch.dropped.numpy()) == [0, 20]
        assert (batch.classes[full].numpy() >= 0).all() and (batch.classes[1 - full].numpy() < 0).all()
        metrics, gradients = finite(step.compiled(batch))
        assert metrics["boxes_dropped"] == 20.0
        assert metrics["num_positive"] >= ROWS  # each box took at least the anchor that fits it best
        assert largest_gradient(gradients, "pyramid_regression") > 0
    assert step.compiled.experimental_get_tracing_count() == runs.traces  # real batches are no new program
    assert runs.scenes["every row taken"].compiled[0]["boxes_dropped"] == 32.0


# -- anchors ---------------------------------------------------------------------------------------


def test_anchors_with_weights_do_not_load(tmp_path):
    """Row "anchors_0": "Skipping loading of weights for layer anchors_0 due to mismatch (1 vs 0)".

    Keras still says so of a layer that keeps its anchors in a variable and is absent from the file.
    """
    class Anchors(keras.Layer):
        def __init__(self, kept: bool):
            super().__init__(name="anchors_0")
            self.kept = kept

        def build(self, shape):
            if self.kept:
                self.anchors = self.add_weight(shape=(9, 4), name="anchors")

        def call(self, x):
            return x + self.anchors[0] if self.kept else x

    def network(kept):
        x = keras.Input([4])
        return keras.Model(x, keras.layers.Dense(4, name="dense")(Anchors(kept)(x)))

    path = str(tmp_path / "snapshot.h5")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that h5 is a format of old
        network(kept=False).save(path)
    assert len(network(kept=True).trainable_variables) == 3  # and the optimizer moves the anchors
    with pytest.warns(UserWarning, match=r"anchors_0\) due to mismatch in number of weights"):
        network(kept=True).load_weights(path, by_name=True, skip_mismatch=True)


def test_anchors_are_constants(step):
    """Row "anchors_0", ours: no variable is an anchor; in the graph of the step they are one constant."""
    paths = [variable.path for variable in step.model.variables]
    assert len(paths) > 60 and not [path for path in paths if "anchor" in path.lower()]
    anchors = np.concatenate(step.model.anchor_grid.anchors(CANVAS))
    assert anchors.shape == (9 * (64 + 16 + 4 + 1 + 1), 4)
    assert not {tuple(variable.shape) for variable in step.model.variables} & {anchors.shape, (9, 4)}
    graph = step.compiled.get_concrete_function(SCENES["objects"][1]).graph
    constants = [tf.make_ndarray(op.get_attr("value")) for op in graph.get_operations()
                 if op.type == "Const" and op.outputs[0].shape == anchors.shape]
    assert any(np.array_equal(constant, anchors) for constant in constants)


def test_a_snapshot_with_anchors_loads(tmp_path):
    """Row "anchors_0", ours: a fork's weights load, all layers but its anchors, and it is said."""
    source, model = small_model(), small_model()
    for index, variable in enumerate(source.variables):
        variable.assign(uniform(*variable.shape, seed=index))
    path = str(tmp_path / "snapshot.h5")
    with h5py.File(path, "w") as file:
        for layer, weights in model_layers(source).items():
            for name, variable in weights.items():
                file[f"{layer}/{layer}/{name}:0"] = variable.numpy()
        file["anchors_0/anchors_0/anchors:0"] = np.zeros([9, 4], np.float32)
    report = load_weights(model, path)
    assert (report.ignored, report.missing, report.mismatched, report.unused) == (("anchors_0",), (), {}, ())
    for loaded, saved in zip(model.variables, source.variables, strict=True):
        np.testing.assert_array_equal(loaded.numpy(), saved.numpy())


# -- "class Anchors has incompatible Ops - Add" ----------------------------------------------------


def test_add_of_anchors_compiles():
    """Row "class Anchors has incompatible Ops - Add": a list of TensorBoard's; the compiler takes Add."""
    grid = AnchorGrid()

    def shifted(base):  # the layer of the notes: anchors of one cell plus the shift of every cell
        y, x = tf.meshgrid((tf.range(8.0) + 0.5) * 8.0, (tf.range(8.0) + 0.5) * 8.0, indexing="ij")
        shifts = tf.reshape(tf.stack([x, y, x, y], axis=-1), [64, 1, 4])
        return tf.reshape(tf.raw_ops.Add(x=shifts, y=base[None]), [576, 4])

    half = tf.constant(grid.cell_sides(32) / 2, tf.float32)
    base = tf.concat([-half, half], axis=-1)
    traced = compiled(shifted).get_concrete_function(base)
    assert "Add" in {op.type for op in traced.graph.get_operations()} and not audit.audit(traced)
    np.testing.assert_allclose(compiled(shifted)(base), grid.anchors(CANVAS)[0], rtol=1e-6, atol=1e-5)


def test_decoding_against_anchors_compiles():
    """Row "class Anchors has incompatible Ops - Add", ours: judged by compiling boxes = anchors + deltas."""
    anchors = np.concatenate(AnchorGrid().anchors(CANVAS))
    deltas = uniform(2, len(anchors), 4)
    coder = CornerBoxCoder()
    boxes, gradient = run_compiled(and_gradient(lambda deltas: coder.decode(deltas, anchors)), deltas)
    side = np.tile(anchors[:, 2:] - anchors[:, :2], 2)
    np.testing.assert_allclose(boxes, anchors + 0.2 * deltas.numpy() * side, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(gradient, np.broadcast_to(0.2 * side, boxes.shape), rtol=1e-5)


# -- multiple values for 'training' ----------------------------------------------------------------


class PassingTrainingTwice(keras.layers.BatchNormalization):
    """The wrapper of keras-resnet: frozen by an argument that the caller may have given too."""

    def call(self, x, **kwargs):
        return super().call(x, training=False, **kwargs)


def test_training_given_twice_is_refused():
    """Row "multiple values for keyword argument 'training'": a wrapper passed on what it set itself.

    Python says so still. Keras 3 no longer lets it come to that: it hands `training` only to a call that
    names the argument, so that the wrapper works when it is called as a layer.
    """
    layer, x = PassingTrainingTwice(), uniform(3, 4)
    layer.build(x.shape)
    with pytest.raises(TypeError, match="got multiple values for keyword argument 'training'"):
        layer.call(x, training=True)
    np.testing.assert_allclose(compiled(lambda x: layer(x, training=True))(x), x / np.sqrt(1.001), rtol=1e-5)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_training_passes_through_nested_layers(normalization):
    """Row "multiple values for keyword argument 'training'", ours: named in every call, passed once."""
    keras.utils.set_random_seed(0)
    backbone = make_backbone("small", normalization=normalization, blocks=(1, 1, 1, 1), widths=(16,) * 5)
    images = uniform(2, 32, 32, 3)
    backbone(images)  # creates the weights
    statistics = [variable for variable in backbone.variables if "moving_" in variable.path]
    before = [variable.numpy() for variable in statistics]

    def gradients(images):
        results = []
        for training in (True, False):
            with tf.GradientTape() as tape:
                total = tf.add_n([tf.reduce_sum(level ** 2) for level in backbone(images, training=training)])
            results.append((total, tape.gradient(total, [v.value for v in backbone.trainable_variables])))
        return results

    (trained, by_trained), (inferred, by_inferred) = run_compiled(gradients, images)
    assert len(by_trained) == len(by_inferred) >= 12
    assert all(np.abs(gradient).max() > 0 for gradient in (by_trained[0], by_inferred[0]))
    moved = {not np.array_equal(old, new.numpy()) for old, new in zip(before, statistics, strict=True)}
    assert moved == {"frozen": {False}, "batch": {True}, "group": set()}[normalization]  # it reached all
    assert (trained == pytest.approx(inferred, rel=1e-6)) == (normalization != "batch")
    if normalization != "batch":  # there the next run starts from other statistics
        assert inferred == pytest.approx(float(gradients(images)[1][0]), **SAME_NUMBER)


# -- uint8 and float32 -----------------------------------------------------------------------------


def test_pixels_normalised_on_the_host_do_not_fit_bytes():
    """Row "uint8 and float32": they differed where the host normalised.

    A mean subtracted from bytes wraps around; the same from floats does not.
    """
    pixels, mean = np.array([[[100, 116, 200]]], np.uint8), np.array([103.939, 116.779, 123.68])
    as_floats = (pixels.astype(np.float32) - mean).astype(np.float32)
    as_bytes = as_floats.astype(np.int32).astype(np.uint8)  # what a uint8 input of the network receives
    np.testing.assert_array_equal(as_bytes, [[[253, 0, 76]]])
    assert np.abs(as_bytes - as_floats).max() > 250


@pytest.mark.parametrize("mode", ["caffe", "tf", "torch"])
def test_pixels_are_normalised_in_the_graph(mode):
    """Row "uint8 and float32", ours: cast first, so the numbers are the very same."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3)).astype(np.uint8)
    content = tf.constant([[5, 4], [3, 2]])

    def normalized(images):
        return normalize_images(images, content, mode)

    as_bytes = run_compiled(normalized, tf.constant(pixels))
    as_floats, gradient = run_compiled(and_gradient(normalized), tf.constant(pixels, tf.float32))
    np.testing.assert_array_equal(as_bytes, as_floats)
    inside = np.zeros((2, 5, 4, 3))
    inside[0], inside[1, :3, :2] = 1, 1
    x, deviation = pixels.astype(np.float64), np.array([0.229, 0.224, 0.225])
    expected, slope = {
        "caffe": (x[..., ::-1] - [103.939, 116.779, 123.68], np.ones(3)),
        "tf": (x / 127.5 - 1, np.full(3, 1 / 127.5)),
        "torch": ((x / 255 - [0.485, 0.456, 0.406]) / deviation, 1 / 255 / deviation),
    }[mode]
    np.testing.assert_allclose(as_bytes, expected * inside, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(gradient, slope * inside, rtol=1e-5)


def as_floats(batch: Batch) -> Batch:
    assert batch.image.dtype == tf.uint8
    return batch._replace(image=tf.cast(batch.image, tf.float32))


def test_bytes_and_floats_train_alike(step, runs):
    """Row "uint8 and float32", ours: loss and all gradients of the step are the same.

    The compiled step on floats is that of `test_odd_pyramid_sizes`.
    """
    set_class_bias(step.model, MUCH_FOUND)
    metrics, gradients = runs.scenes["objects"].plain
    metrics_of_floats, gradients_of_floats = finite(step.plain(as_floats(SCENES["objects"][1])))
    assert metrics_of_floats == metrics
    assert len(gradients) == len(step.model.trainable_variables)
    for name, gradient in gradients.items():
        # The very same sums, but threads may add their parts in another order.
        np.testing.assert_allclose(gradients_of_floats[name], gradient, rtol=0,
                                   atol=1e-6 * np.abs(gradient).max(), err_msg=name)


# -- how to debug ----------------------------------------------------------------------------------


def test_a_compiled_value_cannot_be_looked_at():
    """Row "How to debug": a breakpoint in `call` sees no numbers, and K.function is gone from Keras 3."""
    def looks(x):
        return x * float(tf.reduce_sum(x).numpy())

    with pytest.raises(AttributeError, match="has no attribute 'numpy'"):
        compiled(looks)(tf.ones([2]))
    assert float(looks(tf.ones([2]))[0]) == 2.0  # run eagerly it does
    assert not hasattr(keras.backend, "function")


def debug(model, batch):
    optimizer = keras.optimizers.SGD(0.0)
    optimizer.build(model.trainable_variables)
    lines = []

    def make_step(probe):
        return make_train_step(model, CRITERION, optimizer, probe=probe)

    return debug_step(make_step, model, batch, lines.append), lines


def test_debug_names_the_first_tensor_that_is_not_finite():
    """Row "How to debug", ours: the step run eagerly, a line a tensor, the first bad one named."""
    batch = scene(2, 0, rows=4)
    model = small_model()
    bad, lines = debug(model, batch)
    assert bad is None
    for name in ("batch.boxes", "targets.labels", "layer C3_reduced", "outputs.class_logits[4]",
                 "mask_logits", "gradient of ", "metrics.loss"):
        assert [line for line in lines if line.startswith(name)], name
    weights, kernel = [variable.numpy() for variable in model.variables], model.fpn.lateral[0].kernel
    for value, culprit in ((3e38, "layer C3_reduced"), (np.nan, f"variable {kernel.path}")):
        kernel.assign(tf.fill(kernel.shape, value))  # the first is finite, its outputs are not
        assert debug(model, batch)[0] == culprit
        for variable, weight in zip(model.variables, weights):  # all of them: the update has spread it
            variable.assign(weight)
    pixels = batch.image.numpy().astype(np.float32)
    pixels[0, 3, 4, 1] = np.inf
    bad, lines = debug(model, batch._replace(image=tf.constant(pixels)))
    assert bad == "batch.image"
    assert "^^^ first tensor that is not finite: batch.image (1 of 24576 values)" in lines


# -- the whole step, in every scene ----------------------------------------------------------------


@pytest.mark.parametrize("name", SCENES)
def test_the_compiled_step_is_the_plain_step_in_every_scene(runs, name):
    """All rows: losses and every gradient of the compiled step are finite and those of the plain step."""
    assert_same_step(runs.scenes[name].compiled, runs.scenes[name].plain)


def test_one_program_serves_every_scene(runs):
    """All rows: with boxes or without, nothing changes a shape, so nothing is traced again."""
    assert runs.traces == 1


@pytest.mark.parametrize("name", ["no boxes", "no boxes and no scores"])
def test_no_boxes_in_the_batch(runs, name):
    """All rows: boxes and masks have nothing to learn, exactly; classes learn that there is nothing."""
    metrics, gradients = runs.scenes[name].compiled
    for metric in ("box_loss", "mask_loss", "num_positive", "mask_rois"):
        assert metrics[metric] == 0.0, metric
    assert largest_gradient(gradients, "roi_mask") == largest_gradient(gradients, "pyramid_regression") == 0.0
    assert metrics["class_loss"] > 0.0 and largest_gradient(gradients, "pyramid_classification") > 0.0


def test_every_image_of_the_batch_empty(runs):
    """All rows: images that only fill up a batch leave no trace in the weights."""
    metrics, gradients = runs.scenes["every image empty"].compiled
    assert metrics["loss"] == metrics["gradient_norm"] == 0.0
    assert largest_gradient(gradients, "") == 0.0


def test_boxes_without_masks_train_no_mask(runs):
    """All rows: a box whose mask is not known is trained as a box."""
    metrics, gradients = runs.scenes["boxes without masks"].compiled
    assert metrics["mask_loss"] == metrics["mask_rois"] == largest_gradient(gradients, "roi_mask") == 0.0
    with_masks = runs.scenes["objects"].compiled[0]
    assert metrics["box_loss"] == with_masks["box_loss"] > 0.0


def test_one_pixel_boxes_train(runs):
    """All rows: the smallest boxes are matched, their masks cropped, and no logarithm or ratio runs away."""
    metrics, gradients = runs.scenes["one-pixel boxes"].compiled
    assert metrics["num_positive"] >= 9 and metrics["mask_rois"] >= 9
    assert metrics["box_loss"] > 0.0 and metrics["mask_loss"] > 0.0
    assert largest_gradient(gradients, "pyramid_regression") > 0
    assert largest_gradient(gradients, "roi_mask") > 0


def test_odd_pyramid_sizes(step):
    """Row "ResizeNearestNeighborGrad", ours, in the whole step: levels of 13x17, 7x9, 4x5, 2x3 and 1x2 cells.

    The compiled step gets floats and the plain one bytes, so that it also answers "uint8 vs float32".
    """
    batch = scene(4, canvas=ODD_CANVAS, rows=4)
    set_class_bias(step.model, MUCH_FOUND)
    features = step.model(batch.image).features
    assert [tuple(level.shape[1:3]) for level in features] == [(13, 17), (7, 9), (4, 5), (2, 3), (1, 2)]
    result = step.compiled(as_floats(batch))
    assert_same_step(result, step.plain(batch))
    for part in ("backbone", "C5_reduced", "P3/", "P7/", "roi_mask"):
        assert largest_gradient(finite(result)[1], part) > 0, part


# -- the table -------------------------------------------------------------------------------------


def test_the_table_names_every_test():
    """Each test stands in the table of docs/failures-of-the-notes.md, and each name there is a test here."""
    table = pathlib.Path(__file__).parents[1] / "docs" / "failures-of-the-notes.md"
    named = set(re.findall(r"`(test_\w+)`", table.read_text(encoding="utf-8")))
    tests = {name for name in globals() if name.startswith("test_")}
    assert named == tests - {"test_the_table_names_every_test"}
