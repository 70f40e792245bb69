"""Which canvas of several a picture goes to."""

from collections.abc import Sequence
from typing import Any

import numpy as np

ALIKE = 0.99  # of the share that another canvas is filled by


def canvases_of(image_size: Sequence[Any]) -> tuple[tuple[int, int], ...]:
    """Return one (H, W), or several, as several."""
    several = [image_size] if isinstance(image_size[0], int) else image_size
    return tuple((height, width) for height, width in several)


def fullest(sizes: np.ndarray, scales: np.ndarray, canvases: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return the number of the canvas of which each picture leaves the least empty.

    Args:
      sizes: [n, 2], heights and widths.
      scales: [n, k], of each picture on each canvas.
      canvases: k of (H, W).

    Returns:
      [n] int; of canvases that are filled alike, to 1 %, the one on which the picture is largest, the first of these.
    """
    area = np.array([height * width for height, width in canvases])
    share = np.prod(sizes.astype(np.float64), axis=1)[:, None] * scales.astype(np.float64) ** 2 / area
    alike = share >= share.max(axis=1, keepdims=True, initial=0.0) * ALIKE
    return np.argmax(np.where(alike, scales, 0.0), axis=1)
