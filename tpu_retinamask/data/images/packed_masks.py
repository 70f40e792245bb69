"""Instance masks of one image as one compressed blob: each cut to its own pixels, one bit a pixel.

A mask is stored as its window (x, y, width, height: the smallest that holds every pixel of the instance) and the
pixels in it, row by row, eight to a byte, the first in the highest bit, each mask starting at a byte of its own. The
bytes of all masks of an image follow each other and are compressed as one zlib stream. Nothing is lost: outside its
window a mask is zero.
"""

import zlib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

COMPRESSION_LEVEL = 6


def pack_masks(masks: Sequence[np.ndarray | None]) -> tuple[np.ndarray, bytes]:
    """Pack the masks of one image.

    Args:
      masks: bool [h, w] an instance, each with a pixel at least; None: the instance has no mask.

    Returns:
      (windows int32 [n, 4]: x, y, width, height, zeros where there is no mask; the compressed bytes).

    Raises:
      ValueError: an empty mask.
    """
    windows, parts = np.zeros([len(masks), 4], np.int32), []
    for number, mask in enumerate(masks):
        if mask is None:
            continue
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not rows.size:
            raise ValueError(f"mask {number} is empty")
        (top, bottom), (left, right) = rows[[0, -1]], columns[[0, -1]]
        windows[number] = left, top, right + 1 - left, bottom + 1 - top
        parts.append(np.packbits(mask[top : bottom + 1, left : right + 1], axis=None).tobytes())
    return windows, zlib.compress(b"".join(parts), COMPRESSION_LEVEL)


def unpack_mask(packed: np.ndarray, windows: np.ndarray, number: int, height: int, width: int) -> np.ndarray:
    """Return one mask at full size, bool [height, width].

    Args:
      packed: uint8, the decompressed bytes of the image's masks.
      windows: [n, 4] of `pack_masks`.
      number: which of the n.
      height: rows of the image.
      width: columns of the image.
    """
    x, y, columns, rows = windows[number]
    start = int(_bytes_of(windows[:number]).sum())
    mask = np.zeros([height, width], bool)
    bits = np.unpackbits(packed[start : start + (rows * columns + 7) // 8], count=rows * columns)
    mask[y : y + rows, x : x + columns] = bits.reshape(rows, columns)
    return mask


def packed_starts(windows: tf.Tensor) -> tf.Tensor:
    """Return where the bytes of each mask start, int32 [n].

    Args:
      windows: [n, 4] int32.
    """
    return tf.cumsum(_bytes_of(windows), exclusive=True)


def _bytes_of(windows):
    return (windows[:, 2] * windows[:, 3] + 7) // 8
