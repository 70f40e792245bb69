"""Up-sampling, RoIAlign and the choice of detections equal the layers of keras-maskrcnn."""

import numpy as np
import pytest
import tensorflow as tf
from golden import golden_set

from tpu_retinamask.model.postprocess import DetectionFilter
from tpu_retinamask.ops.boxes import pad_invalid
from tpu_retinamask.ops.resize import conv3x3_after_upsample, upsample_nearest
from tpu_retinamask.ops.roi_align import IMPLEMENTATIONS, assign_levels, multilevel_roi_align

_UPSAMPLE = golden_set.Arrays("layers/upsample")
_ROIALIGN = golden_set.Arrays("layers/roialign")
_FILTER = golden_set.Arrays("layers/filter_detections")
_FILTER_INFO = golden_set.values("layers/filter_detections")
_LEVELS = (3, 4, 5, 6, 7)


@pytest.mark.parametrize("index", [key.split("_")[1] for key in _UPSAMPLE.keys() if key.startswith("source_")])  # noqa: SIM118
def test_nearest_upsampling_to_any_size(index):
    source, output = _UPSAMPLE[f"source_{index}"], _UPSAMPLE[f"output_{index}"]
    np.testing.assert_array_equal(upsample_nearest(tf.constant(source), output.shape[1:3]), output)  # copies


def test_upsampling_of_the_mask_head():
    source = tf.constant(_UPSAMPLE["mask_upsample_source"])
    _UPSAMPLE.compare("mask_upsample_output", upsample_nearest(source))
    # The head's joint up-sampling and convolution: with the identity as kernel it is the up-sampling alone.
    channels = source.shape[-1]
    kernel = np.zeros((3, 3, channels, channels), np.float32)
    kernel[1, 1] = np.eye(channels)
    joint = conv3x3_after_upsample(source, tf.constant(kernel))
    _UPSAMPLE.compare("mask_upsample_output", joint, atol=1e-6)  # sums of one term and zeros


@pytest.mark.parametrize("case", golden_set.cases(_ROIALIGN, ("a", "b"), "_boxes"))
def test_levels_of_boxes(case):
    # Boxes without area, turned inside out, of padding, and of exactly 224 pixels are among them.
    levels = assign_levels(tf.constant(_ROIALIGN[f"{case}_boxes"]), _LEVELS[0], _LEVELS[-1])
    _ROIALIGN.compare(f"{case}_level_index", levels - _LEVELS[0])


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("case", golden_set.cases(_ROIALIGN, ("a", "b"), "_boxes"))
def test_roi_align(case, implementation, compiled):
    features = [tf.constant(_ROIALIGN[f"{case}_P{level}"]) for level in _LEVELS]
    boxes = tf.constant(_ROIALIGN[f"{case}_boxes"])
    align = tf.function(multilevel_roi_align, jit_compile=True) if compiled else multilevel_roi_align
    image_size, size = tuple(_ROIALIGN[f"{case}_image_hw"].tolist()), _ROIALIGN[f"{case}_rois"].shape[2]
    rois = align(
        features, boxes, image_size, output_size=size, semantics="crop_and_resize", implementation=implementation
    )
    # Features of order 1 times weights whose position, up to 60 cells, is rounded to 4e-6.
    _ROIALIGN.compare(f"{case}_rois", rois, atol=5e-5)


@pytest.mark.parametrize("case", _FILTER_INFO["cases"], ids=lambda case: f"out{case['index']}")
def test_filtered_detections(case):
    boxes, scores = tf.constant(_FILTER["boxes"]), tf.constant(_FILTER["classification"])
    chosen = DetectionFilter(
        score_threshold=case["score_threshold"],
        max_detections=case["max_detections"],
        nms_iou=case["nms_threshold"] if case["nms"] else None,
        class_specific=case["class_specific_filter"],
        top_k_per_level=scores.shape[1] * scores.shape[2],
    )
    found, row = chosen.from_boxes(boxes, scores)
    other = pad_invalid(tf.gather(tf.constant(_FILTER["other"]), tf.maximum(row, 0), batch_dims=1), row >= 0)
    name = f"out{case['index']}"
    # Nothing is computed on the way: gathered values are the very same, in the same order.
    _FILTER.compare(f"{name}_boxes", found.boxes)
    _FILTER.compare(f"{name}_scores", found.scores)
    _FILTER.compare(f"{name}_labels", found.classes)
    _FILTER.compare(f"{name}_other", other)
    np.testing.assert_array_equal(tf.reduce_sum(tf.cast(row >= 0, tf.int32), axis=1), case["detections"])
    np.testing.assert_array_equal(found.cut, [0, 0])


def test_a_cut_before_suppression_is_counted():
    # The original looks at every candidate; a static program keeps k, and says how many it left out.
    scores = _FILTER["classification"]
    above = (scores > 0.05).sum(axis=(1, 2))
    found, _ = DetectionFilter(top_k_per_level=50).from_boxes(tf.constant(_FILTER["boxes"]), tf.constant(scores))
    np.testing.assert_array_equal(found.cut, above - 50)


def test_equal_scores_give_the_same_scores_whatever_their_order():
    # Which of equal scores comes first is TensorFlow 1.15's affair: the multiset of scores is not.
    scores = tf.constant(_FILTER["ties_classification"])
    keep = _FILTER["ties_scores"].shape[1]
    found, _ = DetectionFilter(nms_iou=None, max_detections=keep, top_k_per_level=1000).from_boxes(
        tf.constant(_FILTER["boxes"]), scores
    )
    assert np.all(np.diff(found.scores, axis=1) <= 0)
    assert set(np.unique(found.scores)) <= set(np.unique(scores))
