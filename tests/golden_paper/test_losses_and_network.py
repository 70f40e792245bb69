"""Box coder, losses, selection, RoIAlign and P6 equal those of the paper's code, or differ as is said."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from golden_paper import golden_paper_set

from tpu_retinamask.model.layers.convolution import StridedConv2D
from tpu_retinamask.model.postprocess import DetectionFilter
from tpu_retinamask.ops.boxes import CenterBoxCoder
from tpu_retinamask.ops.losses import (
    distance_moments,
    self_adjusting_beta,
    sigmoid_focal_loss,
    smooth_l1_loss,
    update_running_moments,
)
from tpu_retinamask.ops.roi_align import multilevel_roi_align
from tpu_retinamask.structures import AnchorFrame, RawOutputs

_ADJUSTING = golden_paper_set.load("self_adjusting_smooth_l1")


def test_every_file_is_read():
    names = {path.stem for path in golden_paper_set.FOLDER.glob("*.npz")}
    tests = "".join(path.read_text() for path in golden_paper_set.COPY.glob("test_*.py"))
    assert len(names) == 11 and {name for name in names if f'load("{name}")' not in tests} == set()


def test_box_coder():
    golden = {name: tf.constant(value) for name, value in golden_paper_set.load("box_coder").items()}
    deltas = CenterBoxCoder().encode(golden["boxes"], golden["anchors"])
    # Coordinates of some hundred pixels, rounded, over sides of some pixels, times 10.
    np.testing.assert_allclose(deltas, golden["deltas_of_boxes"], atol=5e-5, rtol=1e-5)
    boxes = CenterBoxCoder().decode(golden["deltas"], golden["anchors"])
    np.testing.assert_allclose(boxes, golden["boxes_of_deltas"], atol=1e-3, rtol=1e-6)  # those of the cap are huge


def test_focal_loss_and_its_gradient():
    golden = golden_paper_set.load("focal_loss")
    logits, labels = tf.constant(golden["logits"]), tf.constant(golden["labels"])
    labels = tf.constant(np.select([golden["labels"] > 0, golden["labels"] == 0], [golden["labels"] - 1, -1], -2))
    with tf.GradientTape() as tape:
        tape.watch(logits)
        total = sigmoid_focal_loss(logits, tf.cast(labels, tf.int32))
    np.testing.assert_allclose(total, golden["loss"].astype(np.float64).sum(), rtol=1e-5)
    np.testing.assert_allclose(tape.gradient(total, logits), golden["gradient"], atol=1e-6, rtol=1e-4)
    for row in range(len(golden["labels"])):
        one = sigmoid_focal_loss(logits[row], tf.cast(labels[row], tf.int32))
        np.testing.assert_allclose(one, golden["loss"][row].astype(np.float64).sum(), atol=1e-6, rtol=1e-5)


def test_self_adjusting_loss_from_their_state():
    for k, n in enumerate(_ADJUSTING["n"]):
        predicted, target = (tf.constant(_ADJUSTING[f"{k}_{part}"]) for part in ("predicted", "target"))
        beta = self_adjusting_beta(tf.constant(_ADJUSTING[f"{k}_mean"]), tf.constant(_ADJUSTING[f"{k}_var"]))
        np.testing.assert_allclose(beta, _ADJUSTING[f"{k}_beta"], atol=1e-7, rtol=1e-6)
        with tf.GradientTape() as tape:
            tape.watch(predicted)
            loss = smooth_l1_loss(predicted, target, tf.ones([n], tf.bool), beta=beta) / (4.0 * n)
        np.testing.assert_allclose(loss, _ADJUSTING[f"{k}_loss"], rtol=2e-6, atol=1e-7)
        if f"{k}_gradient" in _ADJUSTING:
            np.testing.assert_allclose(tape.gradient(loss, predicted), _ADJUSTING[f"{k}_gradient"], atol=1e-6)


def test_the_running_state_differs_by_design():
    # Ours is of the batch itself, all replicas together, and is saved: its variance is divided by n, for theirs by
    # n - 1, and one positive alone moves the mean, where theirs skips the batch.
    seen = set()
    for k in range(1, len(_ADJUSTING["n"])):
        n, momentum = int(_ADJUSTING["n"][k]), 0.1
        before = [_ADJUSTING[f"{k - 1}_{part}"] for part in ("mean", "var")]
        predicted, target = _ADJUSTING[f"{k}_predicted"], _ADJUSTING[f"{k}_target"]
        sums = distance_moments(tf.constant(predicted), tf.constant(target), tf.ones([n], tf.bool))
        mean, variance = update_running_moments(*map(tf.constant, before), sums)
        distance = np.abs(predicted.astype(np.float64) - target)
        seen.add(n == 1)
        if n == 1:
            np.testing.assert_array_equal(_ADJUSTING[f"{k}_mean"], before[0])
            np.testing.assert_allclose(mean, before[0] + momentum * (distance[0] - before[0]), rtol=1e-5)
            continue
        np.testing.assert_allclose(mean, _ADJUSTING[f"{k}_mean"], rtol=1e-5)
        step, theirs = (value - (1 - momentum) * before[1] for value in (variance.numpy(), _ADJUSTING[f"{k}_var"]))
        # Differences of float32 numbers, of which a tenth is new.
        np.testing.assert_allclose(step * n / (n - 1), theirs, rtol=1e-3, atol=1e-6)
    assert seen == {True, False}


def test_detections():
    golden = golden_paper_set.load("postprocess_64x64")
    levels = range(sum(key.startswith("anchors_") for key in golden))
    outputs = RawOutputs(
        (), *(tuple(tf.constant(golden[f"{part}_{level}"]) for level in levels) for part in ("logits", "deltas"))
    )
    frame = AnchorFrame((64, 64), [golden[f"anchors_{level}"] for level in levels], CenterBoxCoder())
    images = outputs.class_logits[0].shape[0]
    found = DetectionFilter(nms_iou=0.4)(outputs, frame)
    for image in range(images):
        boxes, scores, classes = (golden[f"{part}_{image}"] for part in ("boxes", "scores", "classes"))
        assert int((found.classes[image].numpy() >= 0).sum()) == len(scores)
        kept = len(scores)
        np.testing.assert_array_equal(found.classes[image, :kept], classes)
        np.testing.assert_allclose(found.scores[image, :kept], scores, atol=1e-6)
        np.testing.assert_allclose(found.boxes[image, :kept], boxes, atol=1e-4)


@pytest.mark.parametrize("implementation", ["gather", "matmul"])
def test_roi_align_is_theirs_half_a_pixel_aside(implementation):
    # Theirs is the RoIAlign of old, whose regions lie half a cell and one pixel aside: better by design here. A region
    # smaller than a cell is widened to one there.
    golden = golden_paper_set.load("roi_align_old")
    features = [tf.constant(golden[f"features_P{level}"]) for level in (3, 4, 5)]
    rois = golden["rois_equal_for_aligned"]
    pooled = multilevel_roi_align(
        features, tf.constant(rois[None]), (256, 256), implementation=implementation, sampling_ratio=2
    )[0]
    wide = (golden["rois"][:, 2:] - golden["rois"][:, :2] > golden["strides"][:, None]).all(axis=1)
    assert wide.sum() >= len(wide) - 1
    np.testing.assert_allclose(pooled.numpy()[wide], golden["pooled"][wide], atol=1e-4)
    assert np.abs(pooled.numpy()[~wide] - golden["pooled"][~wide]).max(initial=1.0) > 0.01


@pytest.mark.parametrize("padding", ["symmetric", "same"])
def test_p6_is_padded_as_theirs(padding):
    golden = golden_paper_set.load("p6_padding")
    layer = StridedConv2D(golden["p6"].shape[-1], golden["kernel"].shape[0], padding, use_bias=False)
    layer.build(golden["p5"].shape)
    layer.set_weights([golden["kernel"]])
    p6 = layer(keras.ops.convert_to_tensor(golden["p5"]))
    apart = np.abs(p6 - golden["p6"]).max()
    assert apart < 1e-5 if padding == "symmetric" else apart > 0.01, apart
