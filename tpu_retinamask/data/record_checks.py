"""What a record of a prepared data set may hold, asked before anything in it is used: in the graph, and on the host.

A record is found by its index, which is checked as it is opened; the record itself is first seen by the graph that
makes a batch of it. What is not as `prepare` writes it there ends the batch, by name.
"""

import numpy as np
import tensorflow as tf

from tpu_retinamask.errors import UserError

MOST_PIXELS = (1 << 31) - 1  # of a picture: no decoder of TensorFlow's makes more


class RecordsError(UserError):
    """A prepared data set that is missing, unfinished, damaged or of another format."""


def checked_record(found: dict[str, tf.Tensor], num_classes: tf.Tensor) -> dict[str, tf.Tensor]:
    """Return the features of a record with a check before them, in graph operations.

    Args:
      found: features as they are parsed; n instances.
      num_classes: int64 scalar; one more than the highest id that the index names.

    Returns:
      The same. Their use raises InvalidArgumentError, which says what is wrong with which image.
    """
    height, width = tf.unstack(found["image/size"])
    boxes, classes = found["objects/box"], found["objects/class"]
    windows, has_mask = found["objects/mask_window"], found["objects/has_mask"]
    right, bottom = tf.cast(width, tf.float32), tf.cast(height, tf.float32)
    x1, y1, x2, y2 = tf.unstack(boxes, axis=1)
    x, y, columns, rows = tf.unstack(windows, axis=1)
    sound_size = (height > 0) & (width > 0) & (height <= MOST_PIXELS) & (width <= MOST_PIXELS)
    sound_size &= height * width <= MOST_PIXELS
    counts = [tf.shape(values, tf.int64)[0] for values in (boxes, classes, windows, has_mask)]
    # Each number on its own first: sums of two that are out of bounds could come out within them.
    in_picture = (x >= 0) & (y >= 0) & (columns >= 0) & (rows >= 0) & (columns <= width) & (rows <= height)
    in_picture &= (x <= width - columns) & (y <= height - rows)
    size = tf.strings.length(found["masks"])
    bits = tf.reduce_sum((columns * rows + 7) // 8)
    checks = {
        "the height and width of its picture": sound_size,
        "the turn of its picture": (found["image/orientation"] >= 1) & (found["image/orientation"] <= 8),
        "the number of its objects": tf.reduce_all(tf.stack(counts) == counts[0]),
        # NaN is not greater or less than anything.
        "a box": tf.reduce_all((x1 >= 0) & (y1 >= 0) & (x1 <= x2) & (y1 <= y2) & (x2 <= right) & (y2 <= bottom)),
        "a class": tf.reduce_all((classes >= 0) & (classes < num_classes)),
        "the place of a mask": tf.reduce_all(in_picture),
        # zlib adds little to what it cannot compress: more than that are no bytes of these masks.
        "the size of its masks": tf.cast(size, tf.int64) <= bits + bits // 256 + 64,
    }
    sound = tf.stack(list(checks.values()))
    first_wrong = tf.constant(list(checks))[tf.argmin(tf.cast(sound, tf.int32))]
    told = tf.strings.join(
        ["the record of ", found["image/filename"], " does not hold what was written: ", first_wrong]
    )
    with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(sound), [told])]):
        return {name: tf.identity(values) for name, values in found.items()}


def checked_masks(packed: tf.Tensor, windows: tf.Tensor) -> tf.Tensor:
    """Return the bytes of all masks of a record, as many as their windows ask for, in graph operations.

    Args:
      packed: uint8; the decompressed bytes.
      windows: [n, 4] int64.
    """
    wanted = tf.reduce_sum((windows[:, 2] * windows[:, 3] + 7) // 8)
    told = "the masks of a record have more or fewer bytes than were written"
    with tf.control_dependencies([tf.debugging.Assert(tf.size(packed, tf.int64) == wanted, [told])]):
        return tf.identity(packed)


def check_windows(windows: np.ndarray, height: int, width: int) -> int:
    """Return how many bytes the masks of a record have, on the host.

    Args:
      windows: [n, 4] int64; x, y, width, height of the stored part of each mask.
      height: rows of the picture.
      width: columns of it.

    Raises:
      RecordsError: a window leaves the picture.
    """
    bounds = np.array([width, height], np.int64)
    inside = (windows >= 0).all() and (windows[:, 2:] <= bounds).all()
    if not inside or (windows[:, :2] > bounds - windows[:, 2:]).any():
        raise RecordsError(f"the place of a mask lies outside the picture of {width} x {height} pixels")
    return int(((windows[:, 2] * windows[:, 3] + 7) // 8).sum())
