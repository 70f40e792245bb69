"""Polygons and COCO run lengths to pixels, checked before pycocotools' C code sees them: it trusts what it is given.

Source: https://github.com/cocodataset/cocoapi/blob/master/common/maskApi.c (rleToString, rleFrString)
"""

import math
from collections.abc import Sequence

import numpy as np
from pycocotools import mask as coco_mask

from tpu_retinamask.data.images.bad_file import BadFile

FARTHEST = 10  # sides of the picture that a polygon may reach beyond it: more would be drawn for minutes
# Pixels that the outlines of one mask may be long: pycocotools walks them in fifths of a pixel, 100 bytes a pixel. The
# outline of a chessboard of single pixels, 1000 a side, is as long.
LONGEST_OUTLINE = 2_000_000


def polygon_pixels(polygons: Sequence[Sequence[float]], height: int, width: int) -> np.ndarray:
    """Draw polygons as pycocotools does, joined to one mask, bool [height, width].

    Args:
      polygons: as `polygon_run_lengths` takes them.
      height: rows of the picture.
      width: columns of the picture.

    Raises:
      BadFile: one that is no list of points, or far outside the picture.
    """
    runs = polygon_run_lengths(polygons, height, width)
    return np.zeros([height, width], bool) if runs is None else coco_mask.decode(runs).astype(bool)


def polygon_run_lengths(polygons: Sequence[Sequence[float]], height: int, width: int) -> dict | None:
    """Draw polygons as pycocotools does, joined to one mask, as its compressed run lengths; None: none has an area.

    Args:
      polygons: each x1, y1, x2, y2, ... in pixels. Those of fewer than three corners enclose nothing and are left out:
        pycocotools would read 4 numbers as a box.
      height: rows of the picture.
      width: columns of the picture.

    Raises:
      BadFile: one that is no list of points, or far outside the picture; outlines longer than `LONGEST_OUTLINE`.
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
    length = sum(_steps_around(polygon) for polygon in kept)
    if length > LONGEST_OUTLINE:
        raise BadFile(
            "bad polygon",
            f"outlines of {length:,.0f} pixels in all, expected at most {LONGEST_OUTLINE:,}; a polygon that goes to "
            "and fro across the picture is no outline of an object",
        )
    return coco_mask.merge(coco_mask.frPyObjects(kept, height, width)) if kept else None


def _steps_around(polygon: Sequence[float]) -> float:
    """Return how many pixels the longer side of each edge has, in all: as many steps pycocotools takes, times five."""
    corners = np.asarray(polygon, np.float64).reshape(-1, 2)
    return float(np.abs(corners - np.roll(corners, -1, axis=0)).max(axis=1).sum())


def run_length_pixels(counts: str | Sequence[int], height: int, width: int) -> np.ndarray:
    """Return the pixels of run lengths, bool [height, width].

    Args:
      counts: as `checked_runs` takes them.
      height: rows.
      width: columns.

    Raises:
      BadFile: no run lengths, or those of another number of pixels.
    """
    runs = checked_runs(counts, height, width)
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape([width, height]).T


def compressed_runs(counts: str | Sequence[int], height: int, width: int) -> dict:
    """Return run lengths as pycocotools takes them, compressed.

    Args:
      counts: as `checked_runs` takes them.
      height: rows.
      width: columns.

    Raises:
      BadFile: no run lengths, or those of another number of pixels.
    """
    runs = checked_runs(counts, height, width)
    if isinstance(counts, str):
        return {"size": [height, width], "counts": counts}
    return coco_mask.frPyObjects({"size": [height, width], "counts": runs.tolist()}, height, width)


def checked_runs(counts: str | Sequence[int], height: int, width: int) -> np.ndarray:
    """Return run lengths, int64 [n], whose sum is the number of pixels.

    Args:
      counts: COCO's compressed text, or runs of pixels down the columns, the first of them zeros.
      height: rows.
      width: columns.

    Raises:
      BadFile: no run lengths, or those of another number of pixels.
    """
    runs = _decompress(counts) if isinstance(counts, str) else _as_runs(counts)
    if np.any(runs < 0):
        raise BadFile(
            "bad run lengths",
            f"run lengths hold {runs.min()}: they must be whole numbers from 0, or COCO's compressed text",
        )
    total = int(sum(runs.tolist())) if runs.size and runs.max() > height * width else int(runs.sum())
    if total != height * width:
        raise BadFile(
            "bad run lengths",
            f"run lengths sum to {total} pixels, expected {width} x {height} = {height * width} (width x height)",
        )
    return runs


def _as_runs(counts: Sequence[int]) -> np.ndarray:
    try:
        runs = np.array(counts)
    except ValueError:  # lists of unlike lengths
        runs = np.array(None)
    if runs.dtype.kind == "f" and np.all(np.abs(runs) < 1 << 62) and np.all(runs == np.floor(runs)):
        runs = runs.astype(np.int64)
    if runs.ndim != 1 or runs.dtype.kind not in "iu" or not runs.size:
        text = ascii(counts[:20])
        raise BadFile(
            "bad run lengths",
            f"got run lengths {text if len(text) <= 60 else text[:57] + '...'}, expected whole numbers from 0, or "
            "COCO's compressed text",
        )
    return runs.astype(np.int64)


def _decompress(text: str) -> np.ndarray:
    """Return the counts of COCO's compressed text, int64 [n]: 5 bits a character, from the fourth on differences."""
    codes = np.array([ord(character) - 48 for character in text], np.int64)
    is_last = codes & 32 == 0
    if codes.size == 0:
        raise BadFile("bad run lengths", "run lengths are an empty text, expected COCO's compressed text")
    if codes.min() < 0 or codes.max() > 63 or not is_last[-1]:
        hint = "; it is bytes as Python shows them: write counts.decode()" if text.startswith(("b'", 'b"')) else ""
        raise BadFile("bad run lengths", f"run lengths {text[:20]!a}... are not COCO's compressed text{hint}")
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
