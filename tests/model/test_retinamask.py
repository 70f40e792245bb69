"""The whole network: its size, its first outputs, and what must not change them."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from reference import scenes

from tpu_retinamask.model.heads import AnchorHead, MaskHead
from tpu_retinamask.model.losses import Criterion
from tpu_retinamask.model.postprocess import DetectionFilter, detect
from tpu_retinamask.model.retinamask import RetinaMask
from tpu_retinamask.training.box_statistics import BoxStatistics
from tpu_retinamask.training.step import make_train_step

_SMALL = dict(
    backbone="small",
    backbone_options=dict(widths=(16, 16, 16, 16, 32)),
    fpn_channels=16,
    head_channels=16,
    head_depth=1,
    head_initializer="he_normal",
    mask_channels=16,
    mask_depth=1,
    roi_size=7,
)
_SIZE = (72, 100)  # no level divides it


def _small(num_classes=2, **options):
    keras.utils.set_random_seed(0)
    return RetinaMask(num_classes, **{**_SMALL, **options}).create_weights(_SIZE)


def _lively(model):
    """Weights under which scores spread over (0, 1), so that detections exist."""
    model.class_head.last.kernel.assign(model.class_head.last.kernel * 30)
    model.class_head.last.bias.assign(tf.fill(model.class_head.last.bias.shape, -2.0))
    model.mask_head.last.kernel.assign(model.mask_head.last.kernel * 30)
    return model


@pytest.fixture(scope="module")
def lively():
    """A model whose scores spread over (0, 1), so that detections exist; not to be changed."""
    return _lively(_small())


@pytest.fixture(scope="module")
def fresh():
    """A model as it starts; not to be changed."""
    return _small()


def test_parameter_count_of_the_original():
    model = RetinaMask(1, p6_from="c5", mask_upsample="nearest").create_weights((64, 64))
    assert model.count_params() == 39_312_612 + 21_002
    rest = model.count_params() - model.class_head.count_params() - model.mask_head.count_params()
    for num_classes in (3, 80):  # the other layers do not know the number of classes
        head, masks = AnchorHead(9, num_classes, name="classes"), MaskHead(num_classes)
        head(keras.KerasTensor((1, 2, 2, 256)))
        masks.build((1, 14, 14, 256))
        assert rest + head.count_params() + masks.count_params() == 39_312_612 + 21_002 * num_classes


def test_a_new_model_calls_one_anchor_in_a_hundred_positive(fresh):
    outputs = fresh(tf.zeros([1, *_SIZE, 3]), tf.constant([[0, 0]]))  # an image of padding only: all zeros
    for logits, deltas in zip(outputs.class_logits, outputs.box_deltas):
        np.testing.assert_allclose(tf.sigmoid(logits), np.full(logits.shape, 0.01), rtol=1e-5)
        np.testing.assert_array_equal(deltas, np.zeros(deltas.shape))


def test_outputs_and_anchors_have_the_same_rows(fresh):
    model = fresh
    outputs = model(tf.zeros([1, *_SIZE, 3]))
    anchors = model.anchor_grid.anchors(_SIZE)
    assert [level.shape[1] for level in outputs.class_logits] == [len(level) for level in anchors]
    assert [level.shape[1] for level in outputs.box_deltas] == [len(level) for level in anchors]


@pytest.mark.parametrize("normalization", ["frozen", "batch", "group"])
def test_batch_equals_singles_in_inference(normalization):
    model = _lively(_small(normalization=normalization))
    batch = scenes.random_batch(1, size=_SIZE)
    content = tf.constant([[72, 100], [50, 100], [72, 33]])
    detection_filter = DetectionFilter(max_detections=10)
    whole = detect(model, detection_filter, batch.image, content)
    assert (whole.scores.numpy() > 0).sum() > 10
    for b in range(3):
        one = detect(model, detection_filter, batch.image[b : b + 1], content[b : b + 1])
        np.testing.assert_array_equal(whole.classes[b], one.classes[0])
        # Convolutions may sum in another order for another batch.
        np.testing.assert_allclose(whole.scores[b], one.scores[0], atol=1e-5)
        np.testing.assert_allclose(whole.boxes[b], one.boxes[0], atol=1e-3)
        np.testing.assert_allclose(whole.masks[b], one.masks[0], atol=1e-4)


def test_masks_are_of_the_detected_class_and_zero_in_padding(lively):
    model = lively
    batch = scenes.random_batch(2, size=_SIZE)
    found = detect(model, DetectionFilter(max_detections=900, nms_iou=0.2), batch.image, batch.content_size)
    outputs = model(batch.image, batch.content_size)
    every = tf.sigmoid(model.mask_logits(outputs.features, found.boxes, None, _SIZE)).numpy()
    classes = found.classes.numpy()
    assert (classes == 0).any() and (classes == 1).any() and (classes == -1).any()
    for c in (0, 1):
        # One column of the last kernel or all of it, of features computed twice: logits of this network reach 60, whose
        # float32 rounding through the sums of five layers is some 6e-5, a quarter of which the sigmoid lets through.
        np.testing.assert_allclose(found.masks.numpy()[classes == c], every[classes == c][..., c], atol=1e-4)
    assert not found.masks.numpy()[classes == -1].any()


def test_masks_of_the_best_alone_are_those_of_all(lively):
    batch = scenes.random_batch(2, size=_SIZE)
    every, best = (
        detect(lively, DetectionFilter(max_detections=20, max_masks=masks), batch.image, batch.content_size)
        for masks in (None, 3)
    )
    assert every.masks.shape[1] == 20 and best.masks.shape[1] == 3
    for a, b in zip(every, best):
        # A product of more regions may sum in another order: a quarter of the rounding of logits that reach 60, above.
        np.testing.assert_allclose(a[:, : b.shape[1]] if a.shape.rank > 1 else a, b, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_uint8_equals_float32_input(dtype):
    model = _small(dtype=dtype)
    image = scenes.random_batch(4, size=_SIZE).image
    for a, b in zip(tf.nest.flatten(model(image)), tf.nest.flatten(model(tf.cast(image, tf.float32)))):
        np.testing.assert_array_equal(tf.cast(a, tf.float32), tf.cast(b, tf.float32))


def test_what_lies_outside_the_content_does_not_matter(fresh):
    model = fresh
    image = scenes.random_batch(5, size=_SIZE, counts=(0,)).image.numpy()
    dirty = image.copy()
    dirty[:, 40:], dirty[:, :, 60:] = 255, 7
    content = tf.constant([[40, 60]])
    for a, b in zip(tf.nest.flatten(model(image, content)), tf.nest.flatten(model(dirty, content))):
        np.testing.assert_array_equal(a, b)


def test_bfloat16_stays_near_float32(lively):
    exact, rough = lively, _small(dtype="mixed_bfloat16")
    rough.set_weights(exact.get_weights())
    batch = scenes.random_batch(6, size=_SIZE)
    outputs, near = exact(batch.image), rough(batch.image)
    assert near.features[0].dtype == tf.bfloat16
    for a, b in zip((*outputs.class_logits, *outputs.box_deltas), (*near.class_logits, *near.box_deltas)):
        assert b.dtype == tf.float32
        # 8 bits of mantissa through some 12 layers: a few hundredths of the spread of the values.
        assert np.abs(a - b).max() < 0.06 * np.ptp(a)
    classes = tf.maximum(batch.classes, 0)
    masks = exact.mask_logits(outputs.features, batch.boxes, classes, _SIZE)
    near_masks = rough.mask_logits(near.features, batch.boxes, classes, _SIZE)
    assert near_masks.dtype == tf.float32
    assert np.abs(masks - near_masks).max() < 0.06 * np.ptp(masks)
    assert {v.dtype for v in rough.trainable_variables} == {"float32"}


def test_compiled_equals_eager(lively):
    model = lively
    batch = scenes.random_batch(7, size=_SIZE)

    def run(image):
        return detect(model, DetectionFilter(max_detections=10), image, batch.content_size)

    compiled, eager = tf.function(run, jit_compile=True)(batch.image), run(batch.image)
    np.testing.assert_array_equal(compiled.classes, eager.classes)
    # Another order of the sums in every convolution.
    np.testing.assert_allclose(compiled.scores, eager.scores, atol=1e-4)
    np.testing.assert_allclose(compiled.boxes, eager.boxes, atol=1e-2)
    np.testing.assert_allclose(compiled.masks, eager.masks, atol=1e-3)


@pytest.mark.parametrize("normalization", ["frozen", "batch"])
def test_training_changes_all_but_frozen_normalisation(normalization):
    model = _small(normalization=normalization)
    batch = scenes.random_batch(8, size=_SIZE)
    # A rate at which the smallest gradients, of a P7 all background, move a float32 weight.
    optimizer = keras.optimizers.SGD(10.0)
    optimizer.build(model.trainable_variables)
    before = {v.path: v.numpy() for v in model.variables}
    metrics = make_train_step(model, Criterion(), optimizer, clip_norm=10.0, box_statistics=BoxStatistics())(batch)
    assert np.isfinite(metrics["loss"]) and float(metrics["num_positive"]) > 0 and float(metrics["mask_rois"]) > 0
    for variable in model.variables:
        changed = not np.array_equal(before[variable.path], variable.numpy())
        frozen = "/bn" in variable.path and normalization == "frozen"
        assert changed != frozen, variable.path


@pytest.mark.parametrize("stopped", [False, True])
def test_the_mask_loss_reaches_the_features_unless_it_is_stopped(stopped):
    model = _small(stop_mask_gradient=stopped)
    batch = scenes.random_batch(9, size=_SIZE)
    with tf.GradientTape() as tape:
        features = model(batch.image).features
        total = tf.reduce_sum(tf.square(model.mask_logits(features, batch.boxes, batch.classes, _SIZE)))
    lateral, head = (layer.kernel.value for layer in (model.fpn.lateral[0], model.mask_head.hidden[0]))
    to_features, to_head = tape.gradient(total, [lateral, head])
    assert np.abs(to_head).max() > 0
    assert to_features is None if stopped else np.abs(to_features).max() > 0
