"""Detections to COCO results: masks pasted into their boxes, boxes in original pixels, JSON on disk."""

import os
from collections.abc import Sequence

import numpy as np

from tpu_retinamask.data.images.window_runs import encode_window
from tpu_retinamask.data.windows import EMPTY, Window
from tpu_retinamask.files import write_json_atomically
from tpu_retinamask.structures import Detections

RESULTS_FILE = "predictions.json"


def paste_masks(masks: np.ndarray, boxes: np.ndarray, height: int, width: int, threshold: float = 0.5) -> np.ndarray:
    """Draw box-relative masks into an image.

    The mask is sampled bilinearly at every pixel centre (x + 0.5, y + 0.5) inside the box:
    `u = (x + 0.5 - x1) / (x2 - x1) * S - 0.5`, clamped to [0, S - 1]. A pixel whose centre lies outside
    the half-open box is False. Work and memory beyond the result are those of the box's window.

    Args:
        masks: [K, S, S] float, probabilities inside the box; first axis is y.
        boxes: [K, 4] float, x1, y1, x2, y2 in pixels of the image to draw into; may reach beyond it. A box
            without area, such as a padding row of -1, gives an empty mask.
        height, width: the image's size in pixels.
        threshold: a pixel belongs to the instance where the sample is greater than this.

    Returns:
        [K, height, width] bool.

    Raises:
        ValueError: if the shapes do not fit together or a box holds a number that is not finite.

    Source: "Mask R-CNN" (arXiv 1703.06870), section 3.1; sampling as detectron2's paste_masks_in_image.
    """
    masks, boxes = np.asarray(masks, np.float32), np.asarray(boxes, np.float64)
    if masks.ndim != 3 or boxes.shape != (masks.shape[0], 4):
        raise ValueError(f"paste_masks: got masks {masks.shape} and boxes {boxes.shape}; expected [K, S, S] and [K, 4]")
    pasted = np.zeros((len(masks), height, width), np.bool_)
    for canvas, mask, box in zip(pasted, masks, boxes):
        window = paste_window(mask, box, height, width, threshold)
        canvas[window.top : window.bottom, window.left : window.right] = window.pixels
    return pasted


def paste_window(mask: np.ndarray, box: np.ndarray, height: int, width: int, threshold: float = 0.5) -> Window:
    """Return the pixels that `paste_masks` draws of one mask, in the part of its box that is inside the image.

    Args:
        mask: [S, S] float32.
        box: [4] float64.
        height, width: the image's size in pixels.
        threshold: a pixel belongs to the instance where the sample is greater than this.

    Raises:
        ValueError: if the box holds a number that is not finite.
    """
    if not np.all(np.isfinite(box)):
        raise ValueError(f"paste_masks: box {box.tolist()} is not finite; a diverged model predicts such")
    x1, y1, x2, y2 = box
    if x2 <= x1 or y2 <= y1:
        return EMPTY
    left, x_low, x_high, x_weight = _sample_axis(x1, x2, width, mask.shape[1])
    top, y_low, y_high, y_weight = _sample_axis(y1, y2, height, mask.shape[0])
    # a + (b - a) * t rather than a * (1 - t) + b * t: a constant mask stays exactly constant, so that
    # 0.5 everywhere never rounds to "greater than 0.5" in some pixels.
    rows = mask[y_low] + (mask[y_high] - mask[y_low]) * y_weight[:, None]  # [h, S], h x w the window
    window = rows[:, x_low] + (rows[:, x_high] - rows[:, x_low]) * x_weight  # [h, w]
    return Window(int(left), int(top), window > threshold)


def _sample_axis(start: float, end: float, image_side: int, mask_side: int):
    """Find the pixels of one axis whose centre lies in [start, end), and the mask cells around each."""
    first, last = np.ceil(np.clip([start - 0.5, end - 0.5], 0, image_side)).astype(np.int64)
    centres = np.arange(first, last) + 0.5
    position = np.clip((centres - start) / (end - start) * mask_side - 0.5, 0, mask_side - 1)
    low = np.floor(position).astype(np.int64)
    high = np.minimum(low + 1, mask_side - 1)
    return first, low, high, (position - low).astype(np.float32)


def result_entry(
    image_id: int | str, category_id: int, box_xyxy: Sequence[float], score: float, segmentation: dict | None = None
) -> dict:
    """Write one detection in the COCO results format.

    Args:
        image_id: the image's id in the ground-truth file (an integer; text is kept as it is).
        category_id: the category's id in the ground-truth file.
        box_xyxy: [4] x1, y1, x2, y2 in original pixels; becomes x, y, width, height, to 3 decimals.
        score: confidence in [0, 1]; its float32 value is kept exactly, since rounding would make ties.
        segmentation: run lengths of the image, or None for a box without a mask.

    Returns:
        A dict with image_id, category_id, bbox, score and, where there is one, segmentation.

    Source: https://cocodataset.org/#format-results
    """
    x1, y1, x2, y2 = (float(value) for value in box_xyxy)
    entry = {
        "image_id": image_id if isinstance(image_id, str) else int(image_id),
        "category_id": int(category_id),
        "bbox": [round(value, 3) for value in (x1, y1, x2 - x1, y2 - y1)],
        "score": float(str(np.float32(score))),  # the shortest decimal that reads back as this float32
    }
    if segmentation is not None:
        entry["segmentation"] = segmentation
    return entry


def detections_to_results(
    detections: Detections,
    image_ids: np.ndarray | Sequence,
    image_scales: np.ndarray | Sequence[float],
    original_sizes: np.ndarray | Sequence,
    category_ids: Sequence[int],
    threshold: float = 0.5,
) -> list[dict]:
    """Convert a batch of detections to COCO results in original pixels.

    Boxes are divided by the image's scale and clipped to the image. Masks are pasted with the box before
    clipping, because that is the box they were predicted in. No mask is held at full size.

    Args:
        detections: boxes [B, K, 4] in canvas pixels, scores [B, K], classes [B, K] (-1 = padding, skipped),
            masks [B, K', S, S] of the first K' detections, or None or S = 0 where no masks were predicted; arrays or
            tensors. The others of the K get the segmentation None.
        image_ids: [B] ids in the ground-truth file; -1 = padding image, skipped.
        image_scales: [B] canvas pixels per original pixel.
        original_sizes: [B, 2] height, width of the image file.
        category_ids: position = class id, value = category id in the ground-truth file.
        threshold: mask probability above which a pixel belongs to the instance.

    Returns:
        `result_entry` dicts, image after image, in the order of the detections.

    Raises:
        ValueError: if the batch sizes differ, a box or score is not finite, a scale is not positive, or a
            class has no category id.
    """
    boxes, scores = np.asarray(detections.boxes), np.asarray(detections.scores)
    classes = np.asarray(detections.classes)
    masks = None if detections.masks is None else np.asarray(detections.masks, np.float32)
    image_ids, image_scales = np.array(image_ids), np.array(image_scales, np.float64)
    original_sizes = np.array(original_sizes)
    batch, kept = classes.shape
    expected = {
        "boxes": (boxes, (batch, kept, 4)),
        "scores": (scores, (batch, kept)),
        "image_ids": (image_ids, (batch,)),
        "image_scales": (image_scales, (batch,)),
        "original_sizes": (original_sizes, (batch, 2)),
    }
    if masks is not None:
        side, masked = masks.shape[-1], min(kept, masks.shape[1])
        expected["masks"] = (masks, (batch, masked, side, side))
    for name, (array, shape) in expected.items():
        if array.shape != shape:
            raise ValueError(f"detections_to_results: {name} has shape {array.shape}, expected {shape}")

    with_masks = masks is not None and masks.shape[-1] > 0
    results = []
    for b in range(batch):
        if image_ids[b] == -1:
            continue
        height, width = (int(side) for side in original_sizes[b])
        if not image_scales[b] > 0:
            raise ValueError(
                f"detections_to_results: image {image_ids[b]} has scale {image_scales[b]}; expected a "
                "positive number, canvas pixels per original pixel"
            )
        for k in np.flatnonzero(classes[b] >= 0):
            if classes[b, k] >= len(category_ids):
                raise ValueError(
                    f"detections_to_results: image {image_ids[b]} has a detection of class {classes[b, k]} "
                    f"but category_ids has {len(category_ids)} entries; use the run's class file"
                )
            box = boxes[b, k].astype(np.float64) / image_scales[b]
            if not np.all(np.isfinite(box)) or not np.isfinite(scores[b, k]):
                raise ValueError(
                    f"detections_to_results: image {image_ids[b]}, detection {k}: box {box.tolist()}, score "
                    f"{scores[b, k]}; expected finite numbers: the model diverged or its weights are damaged"
                )
            segmentation, masked = None, with_masks and masks is not None and k < masks.shape[1]
            if masked and masks is not None:
                segmentation = encode_window(paste_window(masks[b, k], box, height, width, threshold), height, width)
            clipped = np.clip(box, 0, [width, height, width, height])
            entry = result_entry(image_ids[b].item(), category_ids[classes[b, k]], clipped, scores[b, k], segmentation)
            if with_masks and not masked:
                entry["segmentation"] = None  # said, so that a mask that was lost is told from one that was not made
            results.append(entry)
    return results


def write_results(path: str | os.PathLike, results: list[dict]) -> None:
    """Write COCO results as a JSON file that is either complete or absent.

    Args:
        path: local or gs:// path; missing folders are made. An existing file is replaced.
        results: list of `result_entry` dicts.

    Raises:
        ValueError: if a number is not finite (JSON cannot hold it).
    """
    write_json_atomically(path, results)
