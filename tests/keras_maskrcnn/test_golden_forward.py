"""The whole network under the golden weights: every stage, the detections and their masks equal the original's."""

import dataclasses
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf
from golden import golden_set

from tpu_retinamask.model.postprocess import detect
from tpu_retinamask.ops.boxes import clip_boxes
from tpu_retinamask.ops.images import normalize_images
from tpu_retinamask.ops.roi_align import IMPLEMENTATIONS, multilevel_roi_align
from tpu_retinamask.structures import RawOutputs

_FILES = golden_set.present(("forward_even", "forward_odd", "forward_even_conv1_same"), "model/{}.npz")
# Sums of up to 4608 products, fifty layers deep, in another order: some 1e-6 of the largest value of the layer.
_RELATIVE = 2e-5


class Pass(NamedTuple):
    """One forward pass beside what the original had."""

    name: str
    arrays: golden_set.Arrays
    info: dict
    model: object
    detection_filter: object
    images: tf.Tensor  # [B, H, W, 3] RGB
    stages: tuple  # C1..C5
    outputs: RawOutputs

    @property
    def image_size(self):
        return tuple(self.images.shape[1:3])


def _images(name, read_images):
    arrays = golden_set.Arrays(f"model/{name}")
    if "image_bgr_u8" in arrays or "x" in arrays:
        return read_images(arrays)
    return read_images(golden_set.Arrays("model/forward_even"))


@pytest.fixture(scope="module", params=_FILES)
def forward(request, build_original, read_images):
    name = request.param
    same = name.endswith("conv1_same")
    built = build_original("same" if same else "explicit")
    images = _images(name, read_images)
    model = built.model
    stages = model.backbone.stage_outputs(normalize_images(images, None, model.pixel_mode))
    return Pass(
        name,
        golden_set.Arrays(f"model/{name}"),
        golden_set.values(f"model/info_krn0{2 if same else 1}0"),
        model,
        built.detection_filter,
        images,
        stages,
        model(images, training=False),
    )


def _compare(arrays, key, value, relative=_RELATIVE):
    """Compare with the array of that name, if the file has it, relative to the layer's largest value."""
    if key in arrays:
        arrays.compare(key, value, atol=relative * float(np.abs(value).max()))
    return key in arrays


def test_input(forward):
    if "x" in forward.arrays:
        # One subtraction, rounded in another place where the golden set's x is not made from bytes.
        forward.arrays.compare("x", normalize_images(forward.images, None, "caffe"), atol=2e-5)
    assert forward.images.shape[-1] == 3


def test_backbone(forward):
    compared = 0
    for name, stage, steps in zip(
        ("conv1_relu", "C2", "C3", "C4", "C5"),
        forward.stages,
        ((8, 8, 8), (4, 4, 32), (3, 3, 32), (2, 2, 64), (1, 1, 128)),
    ):
        stage = stage.numpy()
        if f"{name}_shape" in forward.arrays:
            forward.arrays.compare(f"{name}_shape", stage.shape)
        y, x, channel = steps
        compared += _compare(forward.arrays, f"{name}_slice", stage[:, ::y, ::x, ::channel])
        compared += _compare(forward.arrays, f"{name}_channel_mean", stage.mean(axis=(1, 2)))
        exact = stage.astype(np.float64)
        statistics = np.stack([exact.mean((1, 2, 3)), exact.std((1, 2, 3)), np.abs(exact).max((1, 2, 3))], axis=1)
        compared += _compare(forward.arrays, f"{name}_stats", statistics)
    assert compared or (forward.name == "forward_even" and golden_set.IS_COPY)  # the copy leaves these to the others


def test_pyramid(forward):
    compared = 0
    for level, feature in zip(range(3, 8), forward.outputs.features):
        feature = feature.numpy()
        name = f"P{level}"
        if f"{name}_shape" in forward.arrays:
            forward.arrays.compare(f"{name}_shape", feature.shape)
        compared += _compare(forward.arrays, f"{name}_slice", feature[:, ::2, ::2, ::16])
        compared += _compare(forward.arrays, f"{name}_channel_mean", feature.mean(axis=(1, 2)))
        if name in forward.arrays:
            whole = feature[..., ::4] if level == 3 else feature
            compared += _compare(forward.arrays, name, whole)
    assert compared


def test_regression_and_classification(forward):
    regression = tf.concat(forward.outputs.box_deltas, axis=1)
    classification = tf.sigmoid(tf.concat(forward.outputs.class_logits, axis=1))
    for name, value in (("regression", regression), ("classification", classification)):
        assert list(value.shape) == forward.info["outputs"][name] or forward.name == "forward_odd"
        assert _compare(forward.arrays, name, value.numpy())


def test_decoded_boxes(forward):
    anchors = np.concatenate(forward.model.anchor_grid.anchors(forward.image_size))
    if "anchors_in_graph" in forward.arrays:
        forward.arrays.compare("anchors_in_graph", anchors, atol=6e-5)  # float32 of up to 1024 pixels, twice rounded
    height, width = forward.image_size
    boxes = forward.model.box_coder.decode(tf.concat(forward.outputs.box_deltas, axis=1), tf.constant(anchors))
    boxes = clip_boxes(boxes, tf.constant([height - 1, width - 1]))
    # Deltas as above, times 0.2 of an anchor of up to 800 pixels.
    forward.arrays.compare("decoded_clipped_boxes", boxes, atol=2e-3)


def test_detections(forward):
    filtered = _filter_without_cut(forward)
    found, anchor = filtered.with_anchors(forward.outputs, forward.model.frame(forward.image_size))
    np.testing.assert_array_equal(found.cut, np.zeros(len(found.cut)))
    forward.arrays.compare("labels", found.classes)  # and so the order of the detections
    forward.arrays.compare("scores", found.scores, atol=_RELATIVE)
    forward.arrays.compare("boxes", found.boxes, atol=2e-3)
    odd = forward.name == "forward_odd"
    counted = forward.info["detections_odd" if odd else "detections"]
    np.testing.assert_array_equal(tf.reduce_sum(tf.cast(anchor >= 0, tf.int32), axis=1), counted)


def _filter_without_cut(forward):
    """The configured filter; its k must be above the candidates, as the original has no such cut."""
    most = max(
        margins["candidates"]
        for margins in forward.info["margins_odd" if forward.name == "forward_odd" else "margins_even"]
    )
    assert most <= forward.detection_filter.top_k_per_level
    return forward.detection_filter


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_features_of_regions(forward, implementation):
    boxes = tf.constant(forward.arrays["boxes"])
    settings = forward.model.settings
    rois = multilevel_roi_align(
        forward.outputs.features,
        boxes,
        forward.image_size,
        output_size=settings.roi_size,
        semantics=settings.roi_semantics,
        sampling_ratio=settings.roi_sampling_ratio,
        implementation=implementation,
    ).numpy()
    forward.arrays.compare("rois_shape", rois.shape)
    step = 16 if forward.name == "forward_even" else 32
    top = rois[:, :8, :, :, ::step]
    # Positions on the level carry the rounding of the boxes: 1e-5 cells times the slope of the features.
    assert _compare(forward.arrays, "rois_top8_slice", top, 5e-5)
    _compare(forward.arrays, "rois_mean", rois.mean(axis=(2, 3, 4)), 5e-5)


def test_masks(forward):
    boxes = tf.constant(forward.arrays["boxes"])
    masks = tf.sigmoid(forward.model.mask_logits(forward.outputs.features, boxes, None, forward.image_size)).numpy()
    forward.arrays.compare("masks_shape", masks.shape)
    forward.arrays.compare("masks_top20", masks[:, :20], atol=5e-5)
    forward.arrays.compare("masks_mean", masks.mean(axis=(2, 3)), atol=2e-5)  # padding rows have masks, too
    flattened = (*boxes.shape[:2], 4 + int(np.prod(masks.shape[2:])))
    forward.arrays.compare("boxes_masks_shape", flattened)


def test_detect_gives_the_masks_of_the_detected_classes(forward):
    best = dataclasses.replace(forward.detection_filter, max_detections=20)
    found = detect(forward.model, best, forward.images, None)
    np.testing.assert_array_equal(found.classes, forward.arrays["labels"][:, :20])
    every = tf.sigmoid(forward.model.mask_logits(forward.outputs.features, found.boxes, None, forward.image_size))
    own = tf.gather(tf.transpose(every, [0, 1, 4, 2, 3]), tf.maximum(found.classes, 0), batch_dims=2)
    own = own * tf.cast(found.classes >= 0, tf.float32)[..., None, None]
    np.testing.assert_allclose(found.masks, own, atol=1e-5)  # one column of the last kernel, or all of it


def test_odd_sides_do_not_show_which_padding_it_was(forward, build_original):
    # With odd sides three zeros all round are what "same" pads, so both versions of keras-resnet agree.
    info = golden_set.values("model/info_krn020")
    if forward.name != "forward_odd":
        assert info["even_size_max_abs_difference_to_explicit_padding"]["regression"] > 1e-3
        return
    assert info["odd_size_max_abs_difference_to_explicit_padding"]["regression"] == 0
    other = build_original("same").model(forward.images, training=False)
    for a, b in zip(forward.outputs.box_deltas, other.box_deltas):
        np.testing.assert_allclose(a, b, atol=1e-5)
