"""The list of seven: against the original's forward pass, by its own relations, and at 300 classes."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from golden import golden_set

from tpu_retinamask.keras_maskrcnn.outputs import NAMES, keras_maskrcnn_outputs
from tpu_retinamask.model.postprocess import DetectionFilter, detect
from tpu_retinamask.model.retinamask import RetinaMask
from tpu_retinamask.ops.images import normalize_images

pytestmark = pytest.mark.ci  # the whole network of the original

SIZE = (72, 100)  # no level divides it


def small(num_classes, **options):
    """Return a narrow network whose scores spread over (0, 1), so that detections exist."""
    keras.utils.set_random_seed(0)
    model = RetinaMask(
        num_classes,
        backbone="small",
        backbone_options=dict(widths=(16, 16, 16, 16, 32)),
        fpn_channels=16,
        head_channels=16,
        head_depth=1,
        head_initializer="he_normal",
        mask_channels=16,
        mask_depth=1,
        **options,
    ).create_weights(SIZE)
    model.class_head.last.kernel.assign(model.class_head.last.kernel * 30)
    model.class_head.last.bias.assign(tf.fill(model.class_head.last.bias.shape, -2.0))
    return model


@pytest.fixture(scope="module")
def model():
    """Three classes."""
    return small(3)


@pytest.fixture(scope="module")
def images():
    """Two images."""
    return tf.constant(np.random.default_rng(2).integers(0, 256, (2, *SIZE, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def outputs(model, images):
    """The seven, by name."""
    return dict(zip(NAMES, keras_maskrcnn_outputs(model, DetectionFilter(max_detections=20), images)))


def test_the_forward_pass_of_the_original(build_original, read_images):
    original = build_original()
    arrays = golden_set.Arrays("model/forward_even")
    images = read_images(arrays)
    seven = keras_maskrcnn_outputs(original.model, original.detection_filter, images)
    named = dict(zip(NAMES, seven))
    # The README's bounds, ten times what another computation in float32 differs by.
    arrays.compare("regression", named["regression"], atol=1e-4)
    arrays.compare("classification", named["classification"], atol=1e-5)
    arrays.compare("boxes", named["boxes"], atol=5e-3)
    arrays.compare("scores", named["scores"], atol=1e-5)
    arrays.compare("labels", named["labels"])
    arrays.compare("masks_top20", named["masks"][:, :20], atol=1e-4)
    # Rows of padding too: the original computes their masks like any other.
    arrays.compare("masks_mean", tf.reduce_mean(named["masks"], axis=(2, 3)), atol=1e-4)
    assert named["masks"].shape == tuple(arrays["masks_shape"])
    assert named["boxes_masks"].shape == tuple(arrays["boxes_masks_shape"])


def test_shapes_and_dtypes(outputs, model):
    anchors = sum(len(level) for level in model.anchor_grid.anchors(SIZE))
    assert {name: tuple(value.shape) for name, value in outputs.items()} == {
        "regression": (2, anchors, 4),
        "classification": (2, anchors, 3),
        "boxes_masks": (2, 20, 4 + 28 * 28 * 3),
        "boxes": (2, 20, 4),
        "scores": (2, 20),
        "labels": (2, 20),
        "masks": (2, 20, 28, 28, 3),
    }
    assert {value.dtype for name, value in outputs.items() if name != "labels"} == {tf.float32}
    assert outputs["labels"].dtype == tf.int32


def test_boxes_masks_is_boxes_then_masks_row_by_row(outputs):
    joined = outputs["boxes_masks"].numpy()
    np.testing.assert_array_equal(joined[..., :4], outputs["boxes"])
    np.testing.assert_array_equal(joined[..., 4:].reshape(outputs["masks"].shape), outputs["masks"])


def test_they_agree_with_detect(outputs, model, images):
    content = tf.constant([SIZE] * 2)
    found = detect(model, DetectionFilter(max_detections=20), images, content)
    assert np.all(found.classes.numpy()[:, :5] >= 0)  # there is something to compare
    np.testing.assert_array_equal(outputs["boxes"], found.boxes)
    np.testing.assert_array_equal(outputs["scores"], found.scores)
    np.testing.assert_array_equal(outputs["labels"], found.classes)
    own = tf.gather(outputs["masks"], tf.maximum(found.classes, 0), axis=-1, batch_dims=2)
    valid = found.classes.numpy() >= 0
    # The class's column alone, or all of them in one product: float32 sums in another order.
    np.testing.assert_allclose(own.numpy()[valid], found.masks.numpy()[valid], atol=1e-5)


def test_normalised_images_give_the_same(outputs, model, images):
    seven = keras_maskrcnn_outputs(
        model, DetectionFilter(max_detections=20), normalize_images(images, None, model.pixel_mode), normalized=True
    )
    for name, value in zip(NAMES, seven):
        np.testing.assert_allclose(value, outputs[name], atol=1e-5, rtol=1e-5, err_msg=name)


def test_padding_of_the_canvas_is_the_same_normalised_or_not(images):
    model = small(3, mask_padding=False)  # as the original, which computes what is beside the picture too
    content = tf.constant([[50, 64], list(SIZE)])
    detection_filter = DetectionFilter(max_detections=5)
    plain = keras_maskrcnn_outputs(model, detection_filter, images, content)
    normalised = keras_maskrcnn_outputs(
        model, detection_filter, normalize_images(images, content, model.pixel_mode), normalized=True
    )
    for name, value, expected in zip(NAMES, normalised, plain):
        np.testing.assert_allclose(value, expected, atol=1e-5, rtol=1e-5, err_msg=name)


def test_no_detection_at_all(model, images):
    nothing = DetectionFilter(score_threshold=1.0, max_detections=7)
    seven = dict(zip(NAMES, keras_maskrcnn_outputs(model, nothing, images)))
    for name in ("boxes", "scores", "labels"):
        np.testing.assert_array_equal(seven[name], np.full(seven[name].shape, -1))
    assert seven["boxes_masks"].shape == (2, 7, 4 + 28 * 28 * 3)
    assert np.all(np.isfinite(seven["masks"]))


def test_300_classes_make_235204_columns(images):
    seven = keras_maskrcnn_outputs(small(300), DetectionFilter(max_detections=2, top_k_per_level=50), images[:1])
    assert seven[2].shape == (1, 2, 235204) and seven[6].shape == (1, 2, 28, 28, 300)


def test_it_compiles_as_one_program(model, images, outputs):
    compiled = tf.function(
        lambda x: keras_maskrcnn_outputs(model, DetectionFilter(max_detections=20), x),
        jit_compile=True,
        autograph=False,
    )
    for name, value in zip(NAMES, compiled(images)):
        # Deltas of up to 40 under these weights, summed by XLA in another order.
        np.testing.assert_allclose(value, outputs[name], atol=1e-3, rtol=1e-4, err_msg=name)


def test_a_content_size_beside_normalised_images_is_refused(model, images):
    with pytest.raises(ValueError, match="normalized=True says that this is done"):
        keras_maskrcnn_outputs(
            model, DetectionFilter(), tf.cast(images, tf.float32), tf.constant([SIZE] * 2), normalized=True
        )
