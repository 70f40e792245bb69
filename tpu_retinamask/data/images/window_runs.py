"""The run lengths of a whole picture, made of a window of it and read back into one.

No array of the picture's size is made: time and memory are those of the window.

Source: https://github.com/cocodataset/cocoapi/blob/master/common/maskApi.c (rleEncode, rleDecode)
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from pycocotools import mask as rle_codec

from tpu_retinamask.data.images.run_lengths import checked_runs
from tpu_retinamask.data.windows import EMPTY, Window, window_of


def encode_window(window: Window, height: int, width: int) -> dict[str, Any]:
    """Return the run lengths of the whole picture, to the bit those of pycocotools.

    Args:
      window: inside the picture.
      height: rows of the picture.
      width: columns of the picture.

    Returns:
      `{'size': [height, width], 'counts': str}`, ready for JSON.

    Raises:
      ValueError: the window leaves the picture.
    """
    rows, columns = window.pixels.shape
    if window.left < 0 or window.top < 0 or window.right > width or window.bottom > height:
        raise ValueError(
            f"encode_window: got {columns} x {rows} pixels at {window.left}, {window.top}, expected them inside the "
            f"picture of {width} x {height}"
        )
    # Runs go down the columns, the end of each marked by a pixel that is none of the mask.
    padded = np.zeros((columns, rows + 1), np.bool_)
    padded[:, :rows] = window.pixels.T
    flat = np.concatenate([[False], padded.ravel()])
    column, row = np.divmod(np.flatnonzero(flat[1:] != flat[:-1]), rows + 1)  # beginnings and ends take turns
    place = (column + window.left) * height + row + window.top
    # A run that ends at the foot of a column goes on at the head of the next.
    same = np.flatnonzero(place[1:-1:2] == place[2::2])
    place = np.delete(place, np.concatenate([2 * same + 1, 2 * same + 2]))
    if not place.size or place[-1] != height * width:
        place = np.append(place, height * width)
    counts = np.diff(place, prepend=0).tolist()
    encoded = rle_codec.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return {"size": [int(height), int(width)], "counts": encoded["counts"].decode("ascii")}


def decode_window(segmentation: Mapping[str, Any]) -> Window:
    """Return the smallest window of run lengths; the other way round from `encode_window`.

    Args:
      segmentation: `size` and `counts`, compressed or not.

    Raises:
      BadFile: they are no run lengths of this size.
    """
    height, width = segmentation["size"]
    ends = np.cumsum(checked_runs(segmentation["counts"], height, width))
    ends = ends[: ends.size // 2 * 2]
    starts, stops = ends[0::2], ends[1::2]
    some = stops > starts
    starts, stops = starts[some], stops[some]
    if not starts.size:
        return EMPTY
    left, right = int(starts[0] // height), int((stops[-1] - 1) // height) + 1
    top, bottom = int((starts % height).min()), int(((stops - 1) % height).max()) + 1
    if np.any(starts // height != (stops - 1) // height):
        top, bottom = 0, height  # a run goes on in the next column
    rows = bottom - top
    inside = (starts // height - left) * rows + starts % height - top
    borders = np.stack([inside, inside + stops - starts], axis=1).ravel()
    lengths = np.diff(borders, prepend=0, append=(right - left) * rows)
    pixels = np.repeat(np.arange(lengths.size) % 2 == 1, lengths).reshape(right - left, rows).T
    return Window(left, top, pixels)


def encode_rle(mask: np.ndarray) -> dict[str, Any]:
    """Encode a binary mask as COCO's compressed run lengths.

    Args:
      mask: [h, w] bool (or 0 and 1).

    Returns:
      `{'size': [h, w], 'counts': str}`, ready for JSON.

    Raises:
      ValueError: `mask` is not two-dimensional.
    """
    mask = np.asarray(mask)
    if mask.ndim != 2:
        raise ValueError(f"encode_rle: got a mask of shape {mask.shape}, expected [height, width]")
    return encode_window(window_of(mask), *mask.shape)
