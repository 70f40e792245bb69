"""Instance masks cropped to their boxes, sampled straight from the full-resolution mask files."""

from collections.abc import Callable

import tensorflow as tf

from tpu_retinamask.data.images.decode import decode_mask
from tpu_retinamask.ops.select import select


def sample_masks(
    read: Callable[[tf.Tensor], tf.Tensor], boxes: tf.Tensor, files: tf.Tensor, values: tf.Tensor, mask_size: int
) -> tf.Tensor:
    """Crop the masks of one image to their boxes, decoding each file once.

    Cell (i, j) of a crop is the pixel under the point ((j + 0.5) / R, (i + 0.5) / R) of the box. No
    resampling of the file lies between, so a crop is as sharp as the file however the image is scaled.

    Args:
      read: function from an int32 file number to the bytes of that mask file.
      boxes: [n, 4] float32 in pixels of the mask file, with an area.
      files: [n] int32 file number; -1: no mask, its crop is zero.
      values: [n] uint16 pixel value of the instance; 0: every non-zero pixel.
      mask_size: R.

    Returns:
      [n, R, R] uint8, 1 on the instance.
    """
    order = tf.argsort(files, stable=True)  # instances of one file become neighbours
    boxes, files, values = (tf.gather(tensor, order) for tensor in (boxes, files, values))
    without = tf.searchsorted(files, [0])[0]  # rows of file -1 come first
    used, _ = tf.unique(files[without:])
    starts = tf.searchsorted(files, used)
    ends = tf.searchsorted(files, used, side="right")
    crops = tf.TensorArray(tf.uint8, size=tf.size(used), infer_shape=False, element_shape=[None, mask_size, mask_size])

    def crop_file(step, crops):
        rows = slice(starts[step], ends[step])
        pixels = decode_mask(read(used[step]))  # [h, w]
        return step + 1, crops.write(step, _crop(pixels, boxes[rows], values[rows], mask_size))

    _, crops = tf.while_loop(lambda step, _: step < tf.size(used), crop_file, (0, crops))
    masks = tf.concat([tf.zeros([without, mask_size, mask_size], tf.uint8), crops.concat()], axis=0)
    return tf.gather(masks, tf.argsort(order))


def sample_mask_stack(masks: tf.Tensor, boxes: tf.Tensor, mask_size: int) -> tf.Tensor:
    """Crop masks that are in memory to their boxes, with the very cells of `sample_masks`.

    Args:
      masks: [n, h, w] uint8, 1 on the instance.
      boxes: [n, 4] float32 in pixels of the masks, with an area.
      mask_size: R.

    Returns:
      [n, R, R] uint8.
    """
    _, height, width = tf.unstack(tf.shape(masks))
    flat = tf.reshape(masks, [-1, height * width])
    return tf.gather(flat, _flat_cells(boxes, height, width, mask_size), batch_dims=1)


def sample_packed_masks(
    packed: tf.Tensor, windows: tf.Tensor, starts: tf.Tensor, boxes: tf.Tensor, size: tf.Tensor, mask_size: int
) -> tf.Tensor:
    """Crop masks packed by `packed_masks` to their boxes, with the very cells of `sample_masks`.

    Args:
      packed: uint8, the bytes of all masks of an image.
      windows: [n, 4] int32, x, y, width, height of the stored part of each mask; no width: no mask, its crop is zero.
      starts: [n] int32, where the bytes of each mask start.
      boxes: [n, 4] float32 in pixels of the picture, with an area.
      size: [2] int32, height and width of the picture.
      mask_size: R.

    Returns:
      [n, R, R] uint8.
    """
    rows, columns = _cells(boxes, size[0], size[1], mask_size)  # [n, R]
    x, y, width, height = tf.unstack(windows[:, tf.newaxis], axis=-1)  # [n, 1]
    rows, columns = rows - y, columns - x
    # Pixel 0 is a zero, and every cell outside its window finds it: a sum with one of these is negative.
    outside = tf.constant(-(2**30))
    first = 1 + 8 * starts[:, tf.newaxis]
    rows = select((rows >= 0) & (rows < height), first + rows * width, outside)
    columns = select((columns >= 0) & (columns < width), columns, outside)
    cells = tf.maximum(rows[:, :, tf.newaxis] + columns[:, tf.newaxis, :], 0)  # [n, R, R]
    shifts = tf.constant([7, 6, 5, 4, 3, 2, 1, 0], tf.uint8)
    pixels = tf.bitwise.bitwise_and(
        tf.bitwise.right_shift(packed[:, tf.newaxis], shifts), tf.constant(1, tf.uint8)
    )  # [bytes, 8]
    return tf.gather(tf.concat([tf.zeros([1], tf.uint8), tf.reshape(pixels, [-1])], axis=0), cells)


def _crop(pixels, boxes, values, mask_size):
    height, width = tf.unstack(tf.shape(pixels))
    seen = tf.gather(tf.reshape(pixels, [-1]), _flat_cells(boxes, height, width, mask_size))
    wanted = values[:, tf.newaxis, tf.newaxis]
    return tf.cast(select(wanted == 0, seen != 0, seen == wanted), tf.uint8)


def _flat_cells(boxes, height, width, mask_size):
    """Return the pixels [n, R, R], counted row by row, under the cells of each box."""
    rows, columns = _cells(boxes, height, width, mask_size)
    return rows[:, :, tf.newaxis] * width + columns[:, tf.newaxis, :]


def _cells(boxes, height, width, mask_size):
    """Return the rows [n, R] and columns [n, R] of the pixels under the cells of each box."""
    centres = (tf.range(mask_size, dtype=tf.float32) + 0.5) / mask_size  # [R]
    x1, y1, x2, y2 = tf.unstack(boxes[:, tf.newaxis], axis=-1)  # [n, 1]
    columns = tf.minimum(tf.cast(x1 + (x2 - x1) * centres, tf.int32), width - 1)  # [n, R]
    rows = tf.minimum(tf.cast(y1 + (y2 - y1) * centres, tf.int32), height - 1)
    return rows, columns
