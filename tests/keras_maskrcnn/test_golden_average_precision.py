"""Mask average precision equals that of keras-maskrcnn, and has a value where it crashes."""

import numpy as np
import pytest
from golden import golden_set

from tpu_retinamask.keras_maskrcnn.average_precision import (
    ImageMasks,
    MaskAveragePrecision,
    average_precision,
    mask_iou,
    mean_average_precision,
    paste_truncated,
)

_ARRAYS = golden_set.Arrays("evaluation/inputs")
_EXPECTED = golden_set.values("evaluation/expected")


def _image(index):
    keys = ("gt_labels", "gt_masks", "boxes", "scores", "labels", "masks", "scale")
    return ImageMasks(*(_ARRAYS[f"im{index}_{key}"] for key in keys))


_IMAGES = [_image(index) for index in range(_EXPECTED["num_images"])]


def _score(images, **arguments):
    return MaskAveragePrecision(**arguments)(images, _EXPECTED["num_classes"])


@pytest.mark.parametrize(
    "result", _EXPECTED["results"], ids=lambda result: "-".join(str(value) for value in result["arguments"].values())
)
def test_average_precision_of_every_argument_set(result):
    per_class = _score(_IMAGES, **result["arguments"])
    assert {str(c) for c in per_class} == set(result["ap_and_instances_per_label"])
    # A few float64 operations on counts.
    for c, (ap, objects) in per_class.items():
        expected = result["ap_and_instances_per_label"][str(c)]
        assert objects == expected[1]
        np.testing.assert_allclose(ap, expected[0], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(mean_average_precision(per_class), result["mean_over_classes_with_objects"], rtol=1e-12)
    np.testing.assert_allclose(
        mean_average_precision(per_class, weighted=True), result["weighted_by_instances"], rtol=1e-12
    )


@pytest.mark.parametrize("case", _EXPECTED["ap_from_sequences"])
def test_area_under_the_envelope(case):
    np.testing.assert_allclose(
        average_precision(case["true_positive"], case["num_annotations"]), case["ap"], rtol=1e-12
    )


def test_iou_of_masks():
    _ARRAYS.compare("iou", mask_iou(_ARRAYS["iou_a"], _ARRAYS["iou_b"]), atol=1e-12)
    assert mask_iou(np.zeros((1, 2, 2)), np.zeros((1, 2, 2)))[0, 0] == 0


def test_what_stops_the_original():
    # Each of these ends its evaluation with an error, as recorded; the tests below give the answers.
    assert set(_EXPECTED["upstream_failures"]) == {
        "image_without_annotations",
        "detection_narrower_than_one_pixel",
        "detection_past_right_border",
    }


def test_what_is_found_in_an_image_without_annotations_is_wrong():
    before = _score(_IMAGES)
    height, width = _IMAGES[0].true_masks.shape[1:]
    empty = _IMAGES[0]._replace(true_classes=np.zeros(0, int), true_masks=np.zeros((0, height, width), np.uint8))
    after = _score([*_IMAGES, empty])
    found = {int(c) for c, score in zip(empty.classes, empty.scores) if score > 0.05}
    for c, (ap, objects) in after.items():
        assert objects == before[c][1]
        assert ap <= before[c][0] and (c in found or ap == before[c][0])
    assert any(after[c][0] < before[c][0] for c in found)


def _one_object(box, score=0.9):
    """An image of 20 x 30 whose only object is a box of 8 x 6 at (24, 5), and one detection."""
    mask = np.zeros((1, 20, 30), np.uint8)
    mask[0, 5:11, 22:30] = 1
    return ImageMasks(
        np.array([0]),
        mask,
        np.array([box], np.float32),
        np.array([score], np.float32),
        np.array([0]),
        np.ones((1, 28, 28), np.float32),
    )


@pytest.mark.parametrize(
    "box, ap",
    [
        ([22, 5, 30, 11], 1.0),
        ([22, 5, 34, 11], 1.0),  # past the right border: what lies outside is cut off
        ([-5, 5, 3, 11], 0.0),
        ([24.2, 5, 24.9, 11], 0.0),  # narrower than one pixel: an empty mask, so a wrong detection
        ([40, 5, 45, 11], 0.0),  # wholly outside
    ],
)
def test_detections_at_and_past_the_border(box, ap):
    image = _one_object(box)
    assert MaskAveragePrecision()([image], 1) == {0: (ap, 1)}
    wrong = MaskAveragePrecision()([image, _one_object([22, 5, 30, 11], 0.5)], 1)[0]
    assert wrong[0] == (1.0 if ap else 0.25)  # a wrong first detection halves the precision of the second


def test_mean_without_any_object_is_zero():
    assert mean_average_precision({0: (0.0, 0)}) == 0.0


def test_pasting_is_bilinear_between_the_centres_of_cells():
    # Cells 0 and 1 over 4 pixels: values 0, .25, .75, 1 along x.
    mask = np.array([[0, 1], [0, 1]], np.float32)
    pasted = paste_truncated(mask, [1.9, 0.2, 5.9, 2.0], (3, 8), 0.5)
    np.testing.assert_array_equal(pasted[0], [False, False, False, True, True, False, False, False])
    np.testing.assert_array_equal(pasted[2], np.zeros(8, bool))
    np.testing.assert_array_equal(
        paste_truncated(mask, [1, 0, 5, 2], (3, 8), 0.2)[0], [False, False, True, True, True, False, False, False]
    )
