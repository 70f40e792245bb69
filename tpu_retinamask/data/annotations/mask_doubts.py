"""Masks that can be trained on and still look wrong beside their boxes, the most doubtful first."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tpu_retinamask.data.annotated_image import AnnotatedImage, AnnotatedInstance
from tpu_retinamask.data.image_arrays import image_arrays
from tpu_retinamask.data.images.mask_reader import MaskReader, shared_mask_files
from tpu_retinamask.data.windows import Window

MOST_LOOKED_AT = 5000  # masks, evenly among all: half a minute
OUTSIDE = 0.1  # share of the pixels outside of the box, from which it is told
SPANNED = 0.6  # IoU of the box with the one around the mask, below which it is told
FILLED = 0.15  # share of the box that the mask fills, below which it is told


class MaskDoubt(NamedTuple):
    """A mask, and what is odd about it."""

    image: AnnotatedImage
    instance: AnnotatedInstance
    window: Window
    why: str
    degree: float  # in (0, 1], 1: as odd as can be


def mask_doubts(images: Sequence[AnnotatedImage]) -> tuple[list[MaskDoubt], int]:
    """Look at masks: pixels outside of the box, a box much larger than its mask, one that is hardly filled.

    Args:
      images: as a source was opened.

    Returns:
      (doubts, the largest degree first; how many masks were looked at).

    Raises:
      ValueError, BadFile: a mask file has changed since it was scanned.
    """
    arrays = image_arrays(images)
    masked = np.flatnonzero(arrays.has_mask)
    chosen = masked[np.linspace(0, len(masked) - 1, min(len(masked), MOST_LOOKED_AT)).astype(int)]
    reader, found = MaskReader(), []
    last, image, shared = -1, None, set()
    for place, row in zip(chosen.tolist(), arrays.image_of[chosen].tolist()):
        if row != last or image is None:
            last, image = row, images[row]
            shared = shared_mask_files(image)
        instance = image.instances[place - int(arrays.splits[row])]
        window = reader.window(instance, image.height, image.width, shared)
        doubt = _doubt(window, instance.box)
        if doubt:
            found.append(MaskDoubt(image, instance, window, *doubt))
    return sorted(found, key=lambda one: -one.degree), len(chosen)


def _doubt(window: Window, box: tuple[float, float, float, float]) -> tuple[str, float] | None:
    """Return the worst that there is to say of a mask and its box, and how bad it is."""
    pixels = int(window.pixels.sum())
    if not pixels:
        return "the mask has no pixel", 1.0
    x1, y1, x2, y2 = (int(box[0]), int(box[1]), int(np.ceil(box[2])), int(np.ceil(box[3])))
    left, top = max(x1 - window.left, 0), max(y1 - window.top, 0)
    inside = int(window.pixels[top : max(y2 - window.top, 0), left : max(x2 - window.left, 0)].sum())
    area = max((box[2] - box[0]) * (box[3] - box[1]), 1e-9)
    across = max(min(box[2], window.right) - max(box[0], window.left), 0)
    down = max(min(box[3], window.bottom) - max(box[1], window.top), 0)
    spanned = across * down / (area + window.pixels.size - across * down)
    told = []
    if 1 - inside / pixels > OUTSIDE:
        told.append((f"{1 - inside / pixels:.0%} of the mask lie outside of its box", 1 - inside / pixels))
    if spanned < SPANNED and min(box[2] - box[0], box[3] - box[1]) > 4:  # of fewer pixels a border is much of a box
        told.append((f"box and mask span other rectangles (IoU {spanned:.2f})", 1 - spanned))
    if pixels / area < FILLED:
        told.append((f"the mask fills {pixels / area:.0%} of its box", 1 - pixels / area))
    return max(told, key=lambda one: one[1]) if told else None
