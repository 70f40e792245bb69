"""Rotation, translation, shear and zoom about a picture's centre: boxes, masks, and pixels in one resampling.

The frame of the picture stays where it is; what is moved out of it is lost. A matrix [3, 3] moves edge coordinates
(x, y, 1) in pixels of the picture: the centre of the first pixel is (0.5, 0.5).
"""

import tensorflow as tf

from tpu_retinamask.data.augment.geometry import View, render
from tpu_retinamask.ops.select import select


def centre_matrix(
    size: tf.Tensor, *, rotation: tf.Tensor, translation: tf.Tensor, shear: tf.Tensor, zoom: tf.Tensor
) -> tf.Tensor:
    """Return the matrix that zooms, shears, turns about the centre, then shifts.

    Args:
      size: [2] int32, height and width of the picture.
      rotation: scalar in radians, counter-clockwise to the eye.
      translation: [2] float32, x and y, share of the width and the height.
      shear: scalar in radians; a column leans to the right of y downwards by this angle.
      zoom: scalar factor.

    Returns:
      [3, 3] float32.
    """
    height, width = tf.unstack(tf.cast(size, tf.float32))
    cosine, sine = tf.cos(rotation) * zoom, tf.sin(rotation) * zoom
    lean = tf.tan(shear)
    linear = tf.reshape(tf.stack([cosine, cosine * lean + sine, -sine, cosine - sine * lean]), [2, 2])
    sides = tf.stack([width, height])
    shift = sides / 2 + translation * sides - tf.linalg.matvec(linear, sides / 2)
    return tf.concat([tf.concat([linear, shift[:, tf.newaxis]], axis=1), [[0.0, 0.0, 1.0]]], axis=0)


def moved_boxes(boxes: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
    """Return the boxes that enclose the moved corners of boxes.

    Args:
      boxes: [n, 4] float32.
      matrix: [3, 3].

    Returns:
      [n, 4] float32, not clipped.
    """
    x, y = tf.gather(boxes, [0, 2, 0, 2], axis=1), tf.gather(boxes, [1, 1, 3, 3], axis=1)  # [n, 4]
    return _enclose(*_move(x, y, matrix))


def enclosing_boxes(masks: tf.Tensor, boxes: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
    """Return the boxes that enclose the moved masks; without a mask, the moved corners of the box.

    Args:
      masks: [n, S, S] uint8, each cropped to its box, which its cells divide evenly; all zero: no mask.
      boxes: [n, 4] float32.
      matrix: [3, 3].

    Returns:
      [n, 4] float32, not clipped; right to one cell.
    """
    side = masks.shape[-1]
    # A linear function is largest at an end of a row: two cells a row, not all of them. Ends found by products and
    # maxima, which are ten times as fast as argmax.
    cells, edges = tf.cast(masks, tf.float32), tf.range(1, side + 1, dtype=tf.float32)
    right = tf.reduce_max(cells * edges, axis=2)  # [n, S] edge after the last cell set; 0: none in this row
    left = side - tf.reduce_max(cells * edges[::-1], axis=2)  # edge before the first
    filled = right > 0  # [n, S]
    x1, y1, x2, y2 = tf.unstack(boxes[:, tf.newaxis], axis=-1)  # [n, 1]

    def corners(edges, low, high):
        return low + (high - low) * edges / side

    rows = edges[tf.newaxis] - 1
    x = tf.concat([corners(edge, x1, x2) for edge in (left, right, left, right)], axis=1)  # [n, 4 * S]
    y = tf.concat([corners(edge + 0 * left, y1, y2) for edge in (rows, rows, rows + 1, rows + 1)], axis=1)
    x, y = _move(x, y, matrix)
    found = _enclose(x, y, tf.tile(filled, [1, 4]))
    return select(tf.reduce_any(filled, axis=1)[:, tf.newaxis], found, moved_boxes(boxes, matrix))


def resample_masks(
    masks: tf.Tensor, boxes: tf.Tensor, windows: tf.Tensor, matrix: tf.Tensor, mask_size: int
) -> tf.Tensor:
    """Crop moved masks: cell (i, j) of a crop is the cell of the mask that lay where its centre is now.

    Args:
      masks: [n, S, S] uint8, each cropped to its box.
      boxes: [n, 4] float32, before the move.
      windows: [n, 4] float32, what is to be cropped, after the move.
      matrix: [3, 3].
      mask_size: R.

    Returns:
      [n, R, R] uint8.
    """
    side = masks.shape[-1]
    centres = (tf.range(mask_size, dtype=tf.float32) + 0.5) / mask_size
    wx1, wy1, wx2, wy2 = tf.unstack(windows[:, tf.newaxis], axis=-1)  # [n, 1]
    x, y = (wx1 + (wx2 - wx1) * centres)[:, tf.newaxis, :], (wy1 + (wy2 - wy1) * centres)[:, :, tf.newaxis]
    x, y = _move(x, y, tf.linalg.inv(matrix))  # [n, R, R]
    x1, y1, x2, y2 = tf.unstack(boxes[:, tf.newaxis, tf.newaxis], axis=-1)  # [n, 1, 1]
    column = tf.cast(tf.floor((x - x1) / (x2 - x1) * side), tf.int32)
    row = tf.cast(tf.floor((y - y1) / (y2 - y1) * side), tf.int32)
    inside = (column >= 0) & (column < side) & (row >= 0) & (row < side)
    cell = select(inside, row * side + column, 0)
    return select(inside, tf.gather(tf.reshape(masks, [-1, side * side]), cell, batch_dims=1), tf.constant(0, tf.uint8))


def render_moved(image: tf.Tensor, view: View, matrix: tf.Tensor, fill: str, antialias: bool = True) -> tf.Tensor:
    """Resample the seen part of a moved picture from its own pixels, as `geometry.render` does the unmoved one.

    What the move and the view shrink together is shrunk first, by the same triangles, then moved.

    Args:
      image: [h, w, 3] uint8.
      view: what is seen of the frame.
      matrix: [3, 3].
      fill: 'nearest' repeats the border around the picture, 'zero' leaves it black as the padding of the canvas.
      antialias: see `geometry.render`.

    Returns:
      [content height, content width, 3] float32.
    """
    inverse = tf.linalg.inv(matrix)
    linear, shift = inverse[:2, :2] / view.scale, inverse[:2, 2]
    image = tf.cast(image, tf.float32)
    sides = tf.cast(tf.shape(image)[:2], tf.float32)
    if antialias:
        # Pixels of the canvas per pixel of the picture, along both axes where it is zoomed and not sheared.
        scale = tf.minimum(view.scale * tf.sqrt(tf.abs(tf.linalg.det(matrix[:2, :2]))), 1.0)
        scale = select(scale > 0.999, 1.0, scale)  # a turn alone shrinks nothing, but for rounding
        image = tf.cond(scale < 1.0, lambda: _shrunk(image, sides, scale), lambda: image)
        linear, shift, sides = linear * scale, shift * scale, sides * scale
    corner = tf.reverse(tf.cast(view.offset, tf.float32), [0]) + 0.5  # the operation counts pixel centres as 0, 1, ..
    shift = tf.linalg.matvec(linear, corner) + shift - 0.5
    transform = tf.concat([linear[0], shift[:1], linear[1], shift[1:], tf.zeros([2])], axis=0)  # [8]
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=image[tf.newaxis],
        transforms=transform[tf.newaxis],
        output_shape=view.content,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
        fill_value=0.0,
    )[0]
    moved = tf.ensure_shape(moved, [None, None, 3])
    if fill == "nearest":
        return moved
    x = tf.range(view.content[1])[tf.newaxis, :]
    y = tf.range(view.content[0])[:, tf.newaxis]
    x, y = (tf.cast(centre, tf.float32) for centre in (x, y))
    from_x = linear[0, 0] * x + linear[0, 1] * y + shift[0]
    from_y = linear[1, 0] * x + linear[1, 1] * y + shift[1]
    height, width = tf.unstack(sides)
    inside = (from_x >= -0.5) & (from_x <= width - 0.5) & (from_y >= -0.5) & (from_y <= height - 0.5)
    return moved * tf.cast(inside, tf.float32)[:, :, tf.newaxis]


def _shrunk(image, sides, scale):
    content = tf.maximum(tf.cast(tf.round(sides * scale), tf.int32), 1)
    whole = tf.zeros([4])  # of no use to `render`
    return render(image, View(scale, tf.zeros([2], tf.int32), content, whole, tf.constant(False)))


def _move(x, y, matrix):
    (a, b, tx), (c, d, ty) = (tf.unstack(row) for row in tf.unstack(matrix[:2]))
    return a * x + b * y + tx, c * x + d * y + ty


def _enclose(x, y, counted=None):
    """Return [n, 4] from points [n, k], of which only the counted ones count."""
    if counted is None:
        low, high = (x, y), (x, y)
    else:
        low = [select(counted, values, values.dtype.max) for values in (x, y)]
        high = [select(counted, values, values.dtype.min) for values in (x, y)]
    return tf.stack(
        [
            tf.reduce_min(low[0], axis=1),
            tf.reduce_min(low[1], axis=1),
            tf.reduce_max(high[0], axis=1),
            tf.reduce_max(high[1], axis=1),
        ],
        axis=1,
    )
