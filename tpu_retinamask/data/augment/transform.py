"""A Python transform of image, masks, labels and boxes: what it is given, and what it must give back.

The convention is that of albumentations: `transform(image=, masks=, labels=, bboxes=)` returns a dict with
the same keys. Python code runs on the host only: see `generator.CSVGenerator` and `host_batches`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tpu_retinamask.errors import UserError

KEYS = ("image", "masks", "labels", "bboxes")
BORDER_TOLERANCE = 0.01  # pixels; libraries that keep boxes as shares of the image, in float32, miss by 1e-4


class TransformError(UserError):
    """Something a transform returned that cannot be trained on."""


class Transformed(NamedTuple):
    """What is left of a sample after a transform."""

    image: np.ndarray  # [h, w, 3] uint8
    masks: np.ndarray  # [n, h, w] uint8, 0 or 1
    has_mask: np.ndarray  # [n] bool
    labels: np.ndarray  # [n] float64
    bboxes: np.ndarray  # [n, 4] float64, inside the image, with an area
    dropped: int  # instances that the transform left out or moved out of sight


def apply_transform(
    transform: Callable,
    image: np.ndarray,
    masks: np.ndarray,
    labels: np.ndarray | Sequence[float],
    bboxes: np.ndarray | Sequence[Sequence[float]],
    *,
    has_mask: np.ndarray | Sequence[bool] | None = None,
    name: str = "image",
) -> Transformed:
    """Call a transform and check what it returns.

    The transform is given image uint8 [H, W, 3], masks a list of uint8 [H, W, 1], labels float64 [n] and bboxes
    float64 [n, 4], all copies. It must return the same keys: image uint8 [h, w, 3], masks a sequence of uint8
    [h, w, 1] (or [h, w]), non-zero on the instance, labels a sequence of n numbers, bboxes a sequence of n times
    4 numbers. It may leave instances out of labels and bboxes alone, as albumentations does with boxes that left
    the image; the masks are then matched to the boxes by order, label and overlap.

    Boxes without area and instances whose mask has become empty are dropped and counted.

    Args:
      transform: see above.
      image: [H, W, 3] uint8.
      masks: [n, H, W] uint8, 0 or 1; zero where an instance has no mask.
      labels: [n] class ids.
      bboxes: [n, 4] pixels.
      has_mask: [n] bool; None: all.
      name: of the image, for errors.

    Raises:
      TransformError: called inside a graph; or says which key, what was returned and what was expected.
    """
    if not isinstance(image, np.ndarray):
        raise TransformError(
            f"transform of {name}: image is {_describe(image)}; a Python transform works on NumPy "
            "arrays on the host and cannot run inside tf.data or tf.function: use "
            "host_batches.HostBatches"
        )
    count = len(bboxes)
    masked = np.ones(count, bool) if has_mask is None else np.array(has_mask, bool)
    given = {
        "image": image.copy(),
        "masks": [mask[:, :, None].astype(np.uint8) for mask in masks],
        "labels": np.array(labels, np.float64).reshape(count),
        "bboxes": np.array(bboxes, np.float64).reshape(count, 4),
    }
    labels_given = given["labels"].copy()
    result = transform(**given)
    if not isinstance(result, Mapping) or not set(KEYS) <= set(result):
        got = f"the keys {sorted(result)}" if isinstance(result, Mapping) else _describe(result)
        raise _wrong(name, "the result", got, f"a dict with the keys {list(KEYS)}")
    image = _check_image(name, result["image"])
    boxes = _check_boxes(name, result["bboxes"], image.shape)
    classes = _check_labels(name, result["labels"], len(boxes))
    found = _check_masks(name, result["masks"], image.shape)  # [n or more, h, w]
    if len(found) != len(boxes):
        rows = _surviving_rows(found, labels_given, classes, boxes) if len(found) == count > len(boxes) else None
        if rows is None:
            raise _wrong(
                name,
                "masks",
                f"{len(found)} masks for {len(boxes)} bboxes ({count} were given)",
                "a mask for every box that is returned, or all that were given, in order",
            )
        found, masked = found[rows], masked[rows]
    elif len(boxes) != count:
        # Which instances are left is the transform's secret; without a mask means without a pixel, unless all had one.
        masked = np.asarray(found.any(axis=(1, 2)) | masked.all())
    seen = np.all(boxes[:, 2:] > boxes[:, :2], axis=1) & (found.any(axis=(1, 2)) | ~masked)
    return Transformed(
        image, found[seen], masked[seen], classes[seen], boxes[seen], dropped=max(0, count - int(seen.sum()))
    )


def _check_image(name, image):
    if (
        not isinstance(image, np.ndarray)
        or image.dtype != np.uint8
        or image.ndim != 3
        or image.shape[2] != 3
        or not image.size
    ):
        raise _wrong(
            name,
            "image",
            _describe(image),
            "a uint8 array [h, w, 3] (the network normalises by itself: leave Normalize and ToTensor out)",
        )
    return image


def _check_boxes(name, bboxes, shape):
    try:
        boxes = np.array([tuple(box) for box in bboxes], np.float64)
    except (TypeError, ValueError):
        boxes = None
    if boxes is not None and not boxes.size:
        return np.zeros((0, 4))
    if boxes is None or boxes.ndim != 2 or boxes.shape[1] != 4 or not np.all(np.isfinite(boxes)):
        raise _wrong(name, "bboxes", _describe(bboxes), "n times x1, y1, x2, y2, finite, in pixels")
    limits = np.array([shape[1], shape[0], shape[1], shape[0]], np.float64)
    outside = np.any((boxes < -BORDER_TOLERANCE) | (boxes > limits + BORDER_TOLERANCE), axis=1)
    if np.any(outside):
        row = int(np.argmax(outside))
        box = ",".join(f"{edge:g}" for edge in boxes[row])
        raise _wrong(
            name,
            f"bboxes[{row}]",
            f"{box}, outside the returned image of {shape[1]} x {shape[0]} pixels (width x height)",
            "pixels of the returned image; with albumentations "
            "BboxParams(format='pascal_voc', label_fields=['labels'])",
        )
    return np.clip(boxes, 0.0, limits)


def _check_labels(name, labels, count):
    try:
        numbers = np.array([float(label) for label in labels], np.float64)
    except (TypeError, ValueError):
        numbers = None
    if numbers is None or len(numbers) != count:
        got = _describe(labels) if numbers is None else f"{len(numbers)} labels for {count} bboxes"
        raise _wrong(
            name,
            "labels",
            got,
            "a class id for every box; with albumentations BboxParams(format='pascal_voc', label_fields=['labels'])",
        )
    if np.any((numbers != np.rint(numbers)) | (numbers < 0)):
        raise _wrong(name, "labels", f"{numbers.tolist()}", "whole numbers from 0, as given")
    return numbers


def _check_masks(name, masks, shape):
    expected = f"uint8 arrays {[*shape[:2], 1]}, of the size of the returned image"
    if not isinstance(masks, (list, tuple, np.ndarray)):
        raise _wrong(name, "masks", _describe(masks), f"a list of {expected}")
    checked = np.zeros((len(masks), *shape[:2]), np.uint8)
    for row, mask in enumerate(masks):
        if not isinstance(mask, np.ndarray) or mask.dtype != np.uint8 or mask.shape not in (shape[:2], (*shape[:2], 1)):
            raise _wrong(name, f"masks[{row}]", _describe(mask), expected)
        checked[row] = mask.reshape(shape[:2]) != 0
    return checked


def _surviving_rows(masks, labels_given, labels, bboxes):
    """Say which of the given instances the returned boxes belong to, or None if no answer fits.

    Transforms keep the order. Of all ways to leave out instances that keep it, that agree with the labels and
    in which every box meets its mask (an empty mask meets any), take the one with the largest sum of IoUs of
    box and mask's bounding box, as the longest common subsequence is found.
    """
    overlap = _overlap_with_masks(masks, bboxes)
    overlap[labels_given[:, None] != labels[None, :]] = -np.inf
    given, left = overlap.shape
    best = np.full((given + 1, left + 1), -np.inf)  # best[i, j]: the first i instances, the first j boxes
    best[:, 0] = 0.0
    for i in range(1, given + 1):
        best[i, 1:] = np.maximum(best[i - 1, 1:], best[i - 1, :-1] + overlap[i - 1])
    if best[given, left] == -np.inf:
        return None
    rows, j = [], left
    for i in range(given, 0, -1):
        if j and best[i, j] != best[i - 1, j]:
            j -= 1
            rows.append(i - 1)
    return np.array(rows[::-1], np.int64)


def _overlap_with_masks(masks, bboxes):
    """Return the IoU [given, left] of the masks' bounding boxes and the boxes: -inf where apart, 0 for no mask."""
    overlap = np.zeros((len(masks), len(bboxes)))
    for row, mask in enumerate(masks):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not rows.size:
            continue
        low, high = np.array([columns[0], rows[0]]), np.array([columns[-1] + 1, rows[-1] + 1])
        meet = np.prod(np.maximum(np.minimum(high, bboxes[:, 2:]) - np.maximum(low, bboxes[:, :2]), 0), axis=1)
        union = np.prod(high - low) + np.prod(bboxes[:, 2:] - bboxes[:, :2], axis=1) - meet
        iou = meet / union
        iou[meet <= 0] = -np.inf
        overlap[row] = iou
    return overlap


def _wrong(name, what, got, expected):
    return TransformError(f"transform of {name}: {what} is {got}; expected {expected}")


def _describe(value):
    if isinstance(value, np.ndarray):
        return f"an array {list(value.shape)} of {value.dtype}"
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 80 else text[:77] + '...'}"
