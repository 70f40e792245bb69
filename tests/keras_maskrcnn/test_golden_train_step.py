"""One batch of training: losses, gradients of every tensor and three Adam steps equal the original's.

The original samples its mask targets at places that depend on the predicted boxes, so its mask loss leaks a
gradient into box regression and into everything below it. The leak is made again here, beside the right
gradient: what the original descends is the sum of ours and the leak.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf
from golden import golden_set

from tpu_retinamask.keras_maskrcnn import losses
from tpu_retinamask.keras_maskrcnn.targets import anchor_targets
from tpu_retinamask.ops.boxes import clip_boxes
from tpu_retinamask.ops.matching import match_rois
from tpu_retinamask.ops.select import select
from tpu_retinamask.structures import IGNORED, Batch
from tpu_retinamask.training.step import compute_losses, make_train_step

pytestmark = pytest.mark.ci  # steps of the original are compiled

_ARRAYS = golden_set.Arrays("model/train_step")
_INFO = golden_set.values("model/train_step")
_NAMES = _INFO["trainable_tensors"]
# A rectifier whose input is within rounding of 0 opens on one side and not on the other, and takes its share of the
# gradient with it: two exact computations differ by up to 9e-4 (README of the golden set).
_NORM = dict(rtol=2e-3)


class _Truth(NamedTuple):
    """The batch of the original: images, targets, annotations."""

    images: tf.Tensor  # [B, H, W, 3] RGB
    regression: tf.Tensor  # [B, N, 4 + 1]
    classification: tf.Tensor  # [B, N, C + 1]
    boxes: tf.Tensor  # [B, M, 4]
    classes: tf.Tensor  # [B, M]
    masks: tf.Tensor  # [B, M, H, W]


class _First(NamedTuple):
    """The losses of the first step and their gradients, one a tensor of _NAMES, None where there is no path."""

    losses: dict
    gradients: dict


@pytest.fixture(scope="module")
def truth(read_images):
    images = read_images(golden_set.Arrays("model/forward_even"))
    height, width = images.shape[1:3]
    annotations = _ARRAYS["annotations"]
    masks = np.unpackbits(_ARRAYS["gt_masks_packbits"], axis=-1)[..., : height * width]
    return _Truth(
        images,
        tf.constant(_ARRAYS["anno0"]),
        tf.constant(_ARRAYS["anno1"]),
        tf.constant(annotations[..., :4]),
        tf.constant(annotations[..., 4].astype(np.int32)),
        tf.constant(masks.reshape(*annotations.shape[:2], height, width)),
    )


@pytest.fixture(scope="module")
def network(build_original):
    """The golden network; its weights are put back at the end."""
    built = build_original("explicit")
    before = [variable.numpy() for variable in built.model.weights]
    yield built
    for variable, value in zip(built.model.weights, before):
        variable.assign(value)


def _losses(network, truth):
    """Return the three losses, and as "leaking" the mask loss of the original."""
    model = network.model
    height, width = truth.images.shape[1:3]
    outputs = model(truth.images, training=True)
    levels = model.anchor_grid.anchors((height, width))
    regression = tf.concat(outputs.box_deltas, axis=1)
    found, anchor = network.detection_filter.with_anchors(outputs, model.frame((height, width)))
    kept = int(tf.reduce_max(tf.reduce_sum(tf.cast(anchor >= 0, tf.int32), axis=1)))  # the rest is padding
    anchor, boxes = anchor[:, : max(1, kept)], found.boxes[:, : max(1, kept)]
    row = tf.maximum(anchor, 0)
    moving = model.box_coder.decode(
        tf.gather(regression, row, batch_dims=1), tf.gather(tf.constant(np.concatenate(levels)), row)
    )
    moving = select((anchor >= 0)[..., None], clip_boxes(moving, tf.constant([height - 1, width - 1])), boxes)
    masks = tf.sigmoid(model.mask_logits(outputs.features, boxes, None, (height, width)))  # [B, K, S, S, C]
    iou, matched = match_rois(boxes, anchor >= 0, truth.boxes, truth.boxes[..., 2] > truth.boxes[..., 0])
    targets = losses.crop_full_masks(truth.masks, moving, matched, masks.shape[2])
    return {
        "regression": losses.smooth_l1_loss(truth.regression, regression),
        "classification": losses.focal_loss(truth.classification, tf.sigmoid(tf.concat(outputs.class_logits, axis=1))),
        "masks": losses.region_mask_loss(boxes, masks, truth.boxes, truth.classes, truth.masks),
        "leaking": losses.matched_mask_loss(
            masks, targets, tf.gather(truth.classes, matched, batch_dims=1), tf.cast(iou >= 0.5, tf.float32)
        ),
    }


def _variables(network):
    return [network.weight(name) for name in _NAMES]


@pytest.fixture(scope="module")
def first(network, truth):
    variables = [variable.value for variable in _variables(network)]
    with tf.GradientTape(persistent=True) as tape:
        values = _losses(network, truth)
    gradients = {key: dict(zip(_NAMES, tape.gradient(value, variables))) for key, value in values.items()}
    return _First({key: float(value) for key, value in values.items()}, gradients)


def _norms(gradients):
    """[T] norms, NaN where there is no path."""
    return np.array(
        [np.nan if gradients[name] is None else np.linalg.norm(np.float64(gradients[name])) for name in _NAMES]
    )


def _total(gradients, mask_key):
    """{name: array}: the gradient of the sum of the three losses."""
    parts = [gradients[key] for key in ("regression", "classification", mask_key)]
    return {name: sum(part[name].numpy() for part in parts if part[name] is not None) for name in _NAMES}


def test_the_tensors_are_our_trainable_variables(network):
    assert {id(variable) for variable in _variables(network)} == {id(v) for v in network.model.trainable_variables}


def test_targets(network, truth):
    # Whole-pixel boxes: some anchors have an IoU of exactly one half, which float32 alone would take for less.
    size = truth.images.shape[1:3]
    real = (truth.boxes[..., 2] > truth.boxes[..., 0]).numpy()
    classes = np.where(real, truth.classes, -1).astype(np.int32)
    grid, content = network.model.anchor_grid, np.tile(size, (len(classes), 1))
    regression, classification = anchor_targets(
        np.concatenate(grid.anchors_float64(size)), truth.boxes, classes, content, truth.classification.shape[2] - 1
    )
    golden_set.assert_close(regression, truth.regression, atol=1e-5, rtol=1e-6)  # offsets of up to 34 in float32
    np.testing.assert_array_equal(regression[..., 4], truth.regression[..., 4])
    np.testing.assert_array_equal(classification, truth.classification)
    batch = Batch(*[None] * len(Batch._fields))._replace(
        content_size=tf.constant(content), boxes=truth.boxes, classes=tf.constant(classes)
    )
    labels = network.criterion.assign(network.model.frame(size), batch).labels.numpy()
    state = truth.regression[..., 4].numpy()
    np.testing.assert_array_equal(labels >= 0, state == 1)
    np.testing.assert_array_equal(labels == IGNORED, state == -1)


def test_losses(first):
    _ARRAYS.compare("losses", [first.losses[name] for name in _INFO["loss_order"]], rtol=1e-5)


def test_smooth_l1_and_focal_gradients_of_every_tensor(first):
    for name in ("regression", "classification"):
        norms = _norms(first.gradients[name])
        # Tensors behind dead units have gradients of rounding alone.
        largest = np.nanmax(norms)
        _ARRAYS.compare(f"grad_norm_of_{name}_loss", norms, **_NORM, atol=1e-6 * largest)
        assert np.sum(~np.isnan(norms)) == _INFO["per_loss"][name]["tensors_with_gradient"]


def test_the_mask_loss_trains_the_mask_head_alone(first):
    # The original stops the gradient at the features of the regions. What it has elsewhere is the leak.
    norms = _norms(first.gradients["masks"])
    golden = _ARRAYS["grad_norm_of_masks_loss"]
    in_head = np.array([name.startswith("roi_mask") for name in _NAMES])
    np.testing.assert_array_equal(~np.isnan(norms), in_head)
    np.testing.assert_allclose(norms[in_head], golden[in_head], **_NORM)


def test_beyond_the_mask_head_the_original_has_the_leak_and_nothing_else(first):
    leaking = _norms(first.gradients["leaking"])
    _ARRAYS.compare("grad_norm_of_masks_loss", leaking, **_NORM, atol=1e-6 * np.nanmax(leaking))
    assert leaking[_NAMES.index("pyramid_regression/kernel")] > 1e-3 * np.nanmax(leaking)
    assert np.isnan(leaking[_NAMES.index("pyramid_classification/kernel")])
    assert first.losses["leaking"] == pytest.approx(first.losses["masks"], rel=1e-6)


def test_gradient_of_the_sum(first):
    ours, golden = _total(first.gradients, "masks"), _total(first.gradients, "leaking")
    norms = _norms(golden)
    _ARRAYS.compare("total_grad_norm", norms, **_NORM, atol=1e-6 * norms.max())
    size = np.array([golden[name].size for name in _NAMES])
    # Single elements carry the error of the whole tensor's norm; a sum over n of them grows with its root. A
    # rectifier on the other side is felt in the backbone most, with its fifty layers.
    for row, name in enumerate(_NAMES):
        tolerance = 1e-3 if name.startswith(("conv1", "res")) else 1e-4
        scale = max(norms[row], 1e-6 * norms.max())
        elements = np.resize(np.append(golden[name].ravel()[:8], np.zeros(8)), 8)
        golden_set.assert_close(elements, _ARRAYS["total_grad_first8"][row], atol=tolerance * scale, name=name)
        total = np.float64(golden[name]).sum()
        golden_set.assert_close(
            total, _ARRAYS["total_grad_sum"][row], atol=tolerance * scale * np.sqrt(size[row]), name=name
        )
    np.testing.assert_allclose(np.sqrt(np.sum(norms**2)), _INFO["global_gradient_norm"], **_NORM)
    # Where the leak does not reach, ours is that gradient; where it does, ours differs by the leak and no more.
    leaked = np.nan_to_num(_norms(first.gradients["leaking"]))
    for row, name in enumerate(_NAMES):
        difference = np.linalg.norm(ours[name] - golden[name])
        expected = 0.0 if name.startswith("roi_mask") else leaked[row]
        assert difference == pytest.approx(expected, rel=1e-3, abs=1e-6 * norms.max()), name


def _adam_steps(network, truth, optimizer, clip_norm, gradients, count):
    """Take steps as the original does, leak and all; yield before each its losses, None for the first."""
    variables = _variables(network)
    values = None
    for _ in range(count):
        yield values
        norm = tf.linalg.global_norm(gradients)
        optimizer.apply([g * (clip_norm / tf.maximum(norm, clip_norm)) for g in gradients], variables)
        with tf.GradientTape() as tape:
            values = _losses(network, truth)
            total = values["regression"] + values["classification"] + values["leaking"]
        gradients = tape.gradient(total, [variable.value for variable in variables])
    yield values


def _bias_correction(step):
    return np.sqrt(1 - 0.999**step) / (1 - 0.9**step)


def _counter_of_the_original(gradients, clip_norm):
    """Return the step number that the original's first update used, 1 or 2.

    In Keras 2.3 on TensorFlow 1 nothing orders the increment of the step counter and its reading, so the first
    update may be corrected as if it were the second, 0.74 of its length. Later ones follow.
    """
    name = "roi_mask_features/kernel"
    gradient = np.float64(gradients[name]) * clip_norm / _INFO["global_gradient_norm"]
    length = np.linalg.norm(0.1 * gradient / (np.sqrt(0.001 * gradient**2) + 1e-7)) * _INFO["adam"]["lr"]
    used = _ARRAYS["adam_step1_delta_norm"][_NAMES.index(name)] / length
    return min((1, 2), key=lambda step: abs(_bias_correction(step) - used))


@pytest.mark.slow  # one step: test_losses, test_our_training_step_under_the_configuration
def test_three_adam_steps(network, truth, first, training_options):
    optimizer, clip_norm = training_options
    options = [float(optimizer.learning_rate), clip_norm, optimizer.beta_1, optimizer.beta_2, optimizer.epsilon]
    assert options == pytest.approx([_INFO["adam"][key] for key in ("lr", "clipnorm", "beta_1", "beta_2", "epsilon")])
    variables = _variables(network)
    before = [variable.numpy() for variable in variables]
    total = _total(first.gradients, "leaking")
    optimizer.build(variables)
    optimizer.iterations.assign(_counter_of_the_original(total, clip_norm) - 1)
    rows = []
    steps = _adam_steps(
        network,
        truth,
        optimizer,
        clip_norm,
        [tf.constant(total[name]) for name in _NAMES],
        len(_ARRAYS["adam_losses"]) - 1,
    )
    for step, values in enumerate(steps):
        parts = [float((values or first.losses)[name]) for name in _INFO["loss_order"]]
        rows.append([sum(parts), *parts])
        if step == 1:
            changes = [variable.numpy().astype(np.float64) - old for variable, old in zip(variables, before)]
    for variable, old in zip(variables, before):
        variable.assign(old)
    # The losses move by some percent in these steps, so this sees a hundredth of a step.
    _ARRAYS.compare("adam_losses", rows, rtol=1e-4)
    np.testing.assert_allclose(rows, _INFO["train_on_batch"], rtol=1e-4)
    lengths = np.array([np.linalg.norm(change) for change in changes])
    longest = np.array([np.abs(change).max() for change in changes])
    # Steps of 1e-8 on float32 weights of 1e-2 are rounded to units of 1e-9; where nothing moves by more than a few
    # of these, rounding is all there is to compare.
    unit = np.array([np.spacing(np.abs(old).max()) for old in before])
    _ARRAYS.compare("adam_step1_delta_norm", lengths, rtol=5e-3, atol=1e-3 * unit)
    golden_set.assert_close(longest, _ARRAYS["adam_step1_delta_absmax"], atol=2 * unit, rtol=2e-3)


def test_our_training_step_under_the_configuration(network, truth, first, training_options):
    # The project's own step: logits, bytes as input, masks cropped to 112 x 112, no leak.
    optimizer, clip_norm = training_options
    height, width = truth.images.shape[1:3]
    batch, rows = truth.classes.shape
    real = (truth.boxes[..., 2] > truth.boxes[..., 0]).numpy()
    crops = golden_set.crop_to_boxes(truth.masks.numpy(), truth.boxes.numpy(), 112)
    inputs = Batch(
        image=truth.images,
        content_size=tf.constant([[height, width]] * batch),
        boxes=truth.boxes,
        classes=tf.constant(np.where(real, truth.classes, -1), tf.int32),
        masks=tf.constant(crops),
        has_mask=tf.constant(real),
        image_scale=tf.ones([batch]),
        original_size=tf.constant([[height, width]] * batch),
        image_id=tf.range(batch, dtype=tf.int64),
        dropped=tf.zeros([batch], tf.int32),
    )
    optimizer.build(network.model.trainable_variables)
    before = [variable.numpy() for variable in network.model.trainable_variables]
    criterion = dataclasses.replace(network.criterion, mask_rois=2 * max(_INFO["matched_detections"]))  # to save time
    step = make_train_step(network.model, criterion, optimizer, clip_norm=clip_norm)
    metrics = {key: float(value) for key, value in step(inputs).items()}
    after, _, _ = compute_losses(network.model, criterion, inputs)
    for variable, old in zip(network.model.trainable_variables, before):
        variable.assign(old)
    golden = dict(zip(_INFO["loss_order"], _ARRAYS["losses"]))
    assert metrics["box_loss"] == pytest.approx(golden["regression"], rel=1e-4)
    assert metrics["class_loss"] == pytest.approx(golden["classification"], rel=1e-4)
    assert metrics["mask_loss"] == pytest.approx(golden["masks"], rel=0.02)  # crops of the masks, not the masks
    assert metrics["num_positive"] == sum(_INFO["positives_per_image"])
    assert metrics["mask_rois"] == sum(_INFO["matched_detections"]) and metrics["mask_rois_overflow"] == 0
    right = np.sqrt(np.sum(_norms(_total(first.gradients, "masks")) ** 2))
    assert metrics["gradient_norm"] == pytest.approx(right, rel=0.02)
    assert float(after) < metrics["loss"]
