"""Detections as the JSON that a request is answered with, in pixels of the picture that was sent."""

from typing import Any, Literal

import numpy as np

from tpu_retinamask.data.images.window_runs import encode_window
from tpu_retinamask.data.windows import Window
from tpu_retinamask.evaluation.results import paste_window
from tpu_retinamask.prediction_formats.outlines import regions_of, simplified, softened, tolerance_of
from tpu_retinamask.tasks.detector import ImageDetections

MaskForm = Literal["polygons", "rle", "both", "none"]


def answer(found: ImageDetections, *, threshold: float, masks: MaskForm) -> dict[str, Any]:
    """Return what was found in a picture, ready for JSON.

    Args:
      found: in it.
      threshold: least score that is told.
      masks: how masks are told: "polygons" (outlines within a pixel), "rle" (COCO's run lengths, to the bit), "both" or
        "none".

    Raises:
      ValueError: a number is not finite.
    """
    height, width = found.size
    return {
        "width": width,
        "height": height,
        "threshold": threshold,
        "detections": [
            {
                "class": found.names[row],
                "class_id": int(found.classes[row]),
                "score": float(str(found.scores[row])),  # the shortest decimal that is this float32
                "box": [round(float(value), 3) for value in found.boxes[row]],
                **_mask(found, row, masks),
            }
            for row in np.flatnonzero(found.scores >= np.float32(threshold)).tolist()
        ],
    }


def _mask(found: ImageDetections, row: int, form: MaskForm) -> dict[str, Any]:
    if form == "none":
        return {}
    window = paste_window(found.mask_probabilities[row], found.mask_boxes[row].astype(np.float64), *found.size)
    told: dict[str, Any] = {}
    if form in ("polygons", "both"):
        told["polygons"] = _polygons(window)
    if form in ("rle", "both"):
        told["rle"] = encode_window(window, *found.size)
    return told


def _polygons(window: Window) -> list[dict[str, Any]]:
    """Return the parts of a mask: each its outline [n, 2] of x, y and its holes."""
    polygons = []
    for region in regions_of(window):
        tolerance = tolerance_of(region)
        outline, *holes = (
            simplified(softened(ring), tolerance).round(2).tolist() for ring in (region.outline, *region.holes)
        )
        polygons.append({"outline": outline, "holes": holes})
    return polygons
