"""Boxes as the network sees them: in pixels of the canvas."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tpu_retinamask.data.annotated_image import AnnotatedImage
from tpu_retinamask.data.image_arrays import image_arrays
from tpu_retinamask.data.stream.pipeline import InputPipeline

MOST_COMPARED = 200_000  # boxes, evenly among all: a share is known to 0.1 % by then


class CanvasBoxes(NamedTuple):
    """Boxes of annotated images, or some evenly among them."""

    boxes: np.ndarray  # [n, 4] x1, y1, x2, y2 in pixels of the canvas
    total: int  # boxes that the images have

    @property
    def sides(self) -> np.ndarray:
        """Return sqrt(width * height) of each, [n]."""
        return np.sqrt((self.boxes[:, 2] - self.boxes[:, 0]) * (self.boxes[:, 3] - self.boxes[:, 1]))


def boxes_on_canvas(images: Sequence[AnnotatedImage], pipeline: InputPipeline, most: int) -> CanvasBoxes:
    """Return the boxes of images at the scale at which a pipeline shows them unchanged.

    Args:
      images: as a source was opened.
      pipeline: whose canvas they are fitted into.
      most: boxes, evenly among all.
    """
    arrays = image_arrays(images)
    total = len(arrays.boxes)
    rows = np.linspace(0, total - 1, min(total, most)).astype(np.int64)
    scales = pipeline.scales_of(images)
    sizes = arrays.sizes[np.searchsorted(arrays.splits, rows, side="right") - 1]
    factors = np.array([scales[height, width] for height, width in sizes.tolist()], np.float64)
    return CanvasBoxes(arrays.boxes[rows] * factors[:, None], total)
