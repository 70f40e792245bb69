"""What the crop of a ground-truth mask to its box at 112 x 112 costs: targets from it against the full-size mask's.

The original interpolates the full-size mask; the pipeline keeps the pixel under each of 112 x 112 points of the
box and interpolates that. Between two pixels of an edge the first has a slope one pixel wide, the second a step, so
cells of the target may differ along the outline of the object and nowhere else.
"""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tpu_retinamask.data.annotations.class_names import read_classes
from tpu_retinamask.data.annotations.csv_annotations import read_annotations
from tpu_retinamask.data.annotations.scan import scan_images
from tpu_retinamask.data.images.mask_reader import MaskReader
from tpu_retinamask.data.images.mask_sampling import sample_mask_stack
from tpu_retinamask.data.stream.pipeline import InputPipeline
from tpu_retinamask.keras_maskrcnn.losses import crop_full_masks
from tpu_retinamask.ops.masks import crop_masks

_NUCLEI = Path(__file__).resolve().parents[2] / "examples/nuclei"
TARGET, CROP = 28, InputPipeline.mask_size
_HALF = 0.5 - 1e-3  # of `ops.masks`


def jittered(boxes, height, width, rng):
    """Return regions around boxes [n, 4], and the box of each: inside the image, as detections are, IoU >= 0.5."""
    rois, matched = [boxes], [np.arange(len(boxes))]
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], (1, 2))
    for _ in range(3):
        moved = np.clip(boxes + rng.normal(0, 0.08, boxes.shape) * sides, 0, [width, height, width, height])
        overlap = np.prod(
            np.maximum(np.minimum(moved[:, 2:], boxes[:, 2:]) - np.maximum(moved[:, :2], boxes[:, :2]), 0), axis=1
        )
        areas = [np.prod(box[:, 2:] - box[:, :2], axis=1) for box in (moved, boxes)]
        near = overlap / (sum(areas) - overlap) >= 0.5
        rois.append(moved[near])
        matched.append(np.flatnonzero(near))
    return np.concatenate(rois).astype(np.float32), np.concatenate(matched).astype(np.int32)


def full_size_targets(masks, rois, matched, semantics):
    """Return the interpolated targets [n, S, S] of full-size masks."""
    if semantics == "aligned":  # regions whose pixels `linspace(y1, y2 - 1, S)` are the cell centres of those given
        half = (rois[:, 2:] - rois[:, :2]) / TARGET / 2
        rois = np.concatenate([rois[:, :2] + half - 0.5, rois[:, 2:] - half + 0.5], axis=1)
    # `crop_full_masks`, like the original, is 0 beyond the centres of the outermost pixels, which rounding may pass.
    # One pixel more on every side keeps that noise out of the measurement.
    masks = np.pad(masks, [(0, 0), (1, 1), (1, 1)], mode="edge")
    return crop_full_masks(tf.constant(masks[None]), tf.constant(rois[None] + 1), tf.constant(matched[None]), TARGET)[0]


@pytest.fixture(scope="module")
def targets():
    """A function from the semantics to (targets of crops, targets of full masks [n, S, S], side of each region)."""
    rows = read_annotations(str(_NUCLEI / "val.csv"), read_classes(str(_NUCLEI / "classes.csv")))
    records, rng = scan_images(rows).images, np.random.default_rng(0)
    samples = []
    for record in records:
        reader = MaskReader()
        instances, size = record.instances, (record.height, record.width)
        masks = np.array([reader.read(instance, *size) for instance in instances], np.uint8)
        boxes = np.array([instance.box for instance in instances], np.float32)
        samples.append((masks, boxes, *jittered(boxes, *size, rng)))

    def make(semantics):
        cropped, full, sides = [], [], []
        for masks, boxes, rois, matched in samples:
            crops = sample_mask_stack(tf.constant(masks), tf.constant(boxes), CROP)
            cropped.append(
                crop_masks(
                    crops[None], boxes[None], rois[None], matched[None], TARGET, binary=False, semantics=semantics
                )[0]
            )
            full.append(full_size_targets(masks, rois, matched, semantics))
            sides.append(np.sqrt(np.prod(rois[:, 2:] - rois[:, :2], axis=1)))
        return np.concatenate(cropped), np.concatenate(full), np.concatenate(sides)

    return make


# Measured on these 2500 regions, half of them under 16 pixels, where one pixel of the mask is 3 cells of the target:
# mean 1.3 % and 1.5 %, largest 4.2 % and 5.6 %, from 16 pixels on 2.9 % and 3.7 %. On 2200 regions of COCO, whose
# outlines are longer: mean 0.9 % and 1.0 %, largest 7.0 % and 6.3 %.
@pytest.mark.parametrize(
    ("semantics", "mean", "largest", "largest_from_16_pixels"),
    [("crop_and_resize", 0.016, 0.055, 0.040), ("aligned", 0.019, 0.070, 0.047)],
)
def test_share_of_target_cells_that_the_crop_changes(targets, semantics, mean, largest, largest_from_16_pixels):
    cropped, full, sides = targets(semantics)
    share = np.mean((cropped >= _HALF) != (full >= _HALF), axis=(1, 2))
    assert len(share) > 2000
    print(
        f"{semantics}: mean {share.mean():.4f}, largest {share.max():.4f}, "
        f"largest from 16 pixels {share[sides >= 16].max():.4f}"
    )
    assert share.mean() <= mean
    assert share.max() <= largest
    assert share[sides >= 16].max() <= largest_from_16_pixels


@pytest.mark.parametrize("semantics", ["crop_and_resize", "aligned"])
def test_only_cells_at_the_outline_change(targets, semantics):
    """A cell that lies wholly on or wholly off the object has the same target either way."""
    cropped, full, _ = targets(semantics)
    assert np.all(cropped[full == 1.0] >= _HALF) and np.all(cropped[full == 0.0] < _HALF)
