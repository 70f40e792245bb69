"""Polygons and COCO run lengths to pixels, checked before pycocotools' C code sees them: it trusts what it is given.

Source: https://github.com/cocodataset/cocoapi/blob/master/common/maskApi.c (rleToString, rleFrString)
"""

import math
from collections.abc import Sequence

import numpy as np
from pycocotools import mask as coco_mask

from tpu_retinamask.data.images.bad_file import BadFile

FARTHEST = 10  # sides of the picture that a polygon may reach beyond it: more would be drawn for minutes


def polygon_pixels(polygons: Sequence[Sequence[float]], height: int, width: int) -> np.ndarray:
    """Draw polygons as pycocotools does, joined to one mask, bool [height, width].

    Args:
      polygons: each x1, y1, x2, y2, ... in pixels. Those of fewer than three corners enclose nothing and are left out:
        pycocotools would read 4 numbers as a box.
      height: rows of the picture.
      width: columns of the picture.

    Raises:
      BadFile: one that is no list of points, or far outside the picture.
    """
    limit = FARTHEST * max(height, width)
    for number, polygon in enumerate(polygons, 1):
        if len(polygon) % 2:
            raise BadFile("bad polygon", f"polygon {number} has {len(polygon)} numbers, expected x, y, x, y, ...")
        for value in polygon:
            if not (math.isfinite(value) and abs(value) <= limit):
                raise BadFile(
                    "bad polygon",
                    f"polygon {number} has the coordinate {value:g}, far outside the picture of {width} x {height}",
                )
    kept = [list(polygon) for polygon in polygons if len(polygon) >= 6]
    if not kept:
        return np.zeros([height, width], bool)
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(kept, height, width))).astype(bool)


def run_length_pixels(counts: str | Sequence[int], height: int, width: int) -> np.ndarray:
    """Return the pixels of run lengths, bool [height, width].

    Args:
      counts: COCO's compressed text, or runs of pixels down the columns, the first of them zeros.
      height: rows.
      width: columns.

    Raises:
      BadFile: no run lengths, or those of another number of pixels.
    """
    runs = _decompress(counts) if isinstance(counts, str) else np.array(counts)
    if runs.ndim != 1 or runs.dtype.kind not in "iu" or np.any(runs < 0):
        raise BadFile("bad run lengths", "run lengths must be whole numbers from 0, or COCO's compressed text")
    if runs.sum() != height * width:
        raise BadFile(
            "bad run lengths",
            f"run lengths of {runs.sum()} pixels in all for {width} x {height} = {width * height} pixels",
        )
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape([width, height]).T


def _decompress(text: str) -> np.ndarray:
    """Return the counts of COCO's compressed text, int64 [n]: 5 bits a character, from the fourth on differences."""
    codes = np.array([ord(character) - 48 for character in text], np.int64)
    is_last = codes & 32 == 0
    if codes.size == 0 or codes.min() < 0 or codes.max() > 63 or not is_last[-1]:
        raise BadFile("bad run lengths", f"run lengths {text[:20]!r}... are not COCO's compressed text")
    ends = np.flatnonzero(is_last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 8:
        raise BadFile("bad run lengths", f"run lengths {text[:20]!r}... hold a count beyond 2 ** 40")
    place = np.arange(codes.size) - np.repeat(starts, lengths)
    values = np.add.reduceat((codes & 31) << (5 * place), starts)
    values -= (codes[ends] & 16 != 0) * (np.int64(1) << (5 * lengths))  # the highest bit is the sign
    values[1::2] = np.cumsum(values[1::2])  # each count but the first three is the difference from the last but one
    values[2::2] = np.cumsum(values[2::2])
    return values
