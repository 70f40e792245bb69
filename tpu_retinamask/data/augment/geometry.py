"""Where a picture lands on the canvas: one scale and one whole-pixel offset, known before any pixel."""

from typing import NamedTuple

import tensorflow as tf

from tpu_retinamask.ops.select import select

# What must be left of an instance that a crop has cut: less shows nothing to learn from.
MIN_VISIBLE_SIDE = 1.0  # canvas pixels
MIN_VISIBLE_AREA = 0.1  # share of the whole box


class View(NamedTuple):
    """The part of a picture that is seen, and its scale.

    An original coordinate x maps to `x * scale - offset` on the canvas, for pixels, boxes and masks
    alike: the scale is applied as it is, not rounded to the resized sides, so one number inverts it.
    """

    scale: tf.Tensor  # float32; canvas pixels per original pixel
    offset: tf.Tensor  # [2] int32; y, x of the crop's corner in the scaled picture; 0 without a crop
    content: tf.Tensor  # [2] int32; height, width of what is seen, at most the canvas
    window: tf.Tensor  # [4] float32; x1, y1, x2, y2 of what is seen, in original pixels
    cropped: tf.Tensor  # bool; the scaled picture did not fit the canvas


def fit_scale(size: tf.Tensor, canvas: tf.Tensor, min_side: int | None, max_side: int | None) -> tf.Tensor:
    """Choose the scale `min(min_side / min(h, w), max_side / max(h, w))`, at most what fits the canvas.

    Args:
      size: [..., 2] int32, height and width of the picture.
      canvas: [..., 2] int32, height and width of the canvas.
      min_side: wanted short side in pixels; None: as large as the canvas allows.
      max_side: limit of the long side in pixels; None: the canvas alone limits it.

    Returns:
      [...] float32.
    """
    sides = tf.cast(size, tf.float32)
    scale = tf.reduce_min(tf.cast(canvas, tf.float32) / sides, axis=-1)
    if min_side is not None:
        scale = tf.minimum(scale, min_side / tf.reduce_min(sides, axis=-1))
    if max_side is not None:
        scale = tf.minimum(scale, max_side / tf.reduce_max(sides, axis=-1))
    return scale


def place(size: tf.Tensor, canvas: tf.Tensor, scale: tf.Tensor, position: tf.Tensor) -> View:
    """Scale a picture and, where it exceeds the canvas, choose the crop window.

    The scaled sides are `round(scale * side)`, at least 1: a pixel is content if its centre is inside.

    Args:
      size: [2] int32, height and width of the picture.
      canvas: [2] int32, height and width of the canvas.
      scale: float32 scalar.
      position: [2] float32 in [0, 1), y and x of the window among all places it could have.
    """
    sides = tf.cast(size, tf.float32)
    scaled = tf.maximum(tf.cast(tf.round(sides * scale), tf.int32), 1)  # [2]
    content = tf.minimum(scaled, canvas)
    spare = scaled - content
    offset = tf.minimum(tf.cast(position * tf.cast(spare + 1, tf.float32), tf.int32), spare)
    low = tf.cast(offset, tf.float32) / scale
    end = tf.cast(offset + content, tf.float32)
    # An exact fit must give the side itself: a quotient one ulp short would cut every border box.
    high = select(sides * scale - end > 1e-3, end / scale, sides)
    window = tf.stack([low[1], low[0], high[1], high[0]])
    return View(scale, offset, content, window, tf.reduce_any(spare > 0))


def render(image: tf.Tensor, view: View, antialias: bool = True) -> tf.Tensor:
    """Resample the seen part of a picture: bilinear, half-pixel centres.

    Shrunk by 1 / s, a pixel is the average of those below a triangle of 2 s pixels; without antialiasing, and where a
    picture is enlarged, s is 1. Equals `tf.image.resize` where the scaled sides are whole; elsewhere that function
    would stretch each side to its rounded length, which no single image scale describes.

    Args:
      image: [h, w, 3] uint8 or float32.
      view: what is seen.
      antialias: see above.

    Returns:
      [content height, content width, 3] float32.
    """
    # A side that becomes less than a pixel is given one, whose centre must lie within the picture.
    sides = tf.cast(tf.shape(image)[:2], tf.float32)
    resized = tf.raw_ops.ScaleAndTranslate(
        images=image[tf.newaxis],
        size=view.content,
        scale=tf.maximum(view.scale, 1.0 / sides),
        translation=-tf.cast(view.offset, tf.float32),
        kernel_type="triangle",
        antialias=antialias,
    )
    return tf.ensure_shape(resized[0], [None, None, 3])


def clip_to_view(boxes: tf.Tensor, view: View) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Clip boxes to the seen part and say which still show their object.

    An instance that a crop has cut stays if `MIN_VISIBLE_SIDE` and `MIN_VISIBLE_AREA` of it are left.
    Without a crop only the rounding of the scaled sides cuts (less than half a canvas pixel).

    Args:
      boxes: [n, 4] float32 in original pixels.

    Returns:
      (clipped boxes [n, 4] in original pixels, the same [n, 4] in canvas pixels, visible [n] bool).
    """
    x1, y1, x2, y2 = tf.unstack(view.window)
    low, high = tf.stack([x1, y1, x1, y1]), tf.stack([x2, y2, x2, y2])
    clipped = tf.clip_by_value(boxes, low, high)  # [n, 4]
    offset = tf.cast(view.offset, tf.float32)
    limit = tf.cast(view.content, tf.float32)
    on_canvas = clipped * view.scale - tf.stack([offset[1], offset[0], offset[1], offset[0]])
    on_canvas = tf.clip_by_value(on_canvas, 0.0, tf.stack([limit[1], limit[0], limit[1], limit[0]]))
    sides = clipped[:, 2:] - clipped[:, :2]  # [n, 2]
    whole = tf.reduce_prod(boxes[:, 2:] - boxes[:, :2], axis=-1)  # [n]
    share = tf.reduce_prod(sides, axis=-1) / whole
    min_side = select(view.cropped, MIN_VISIBLE_SIDE, 0.0)
    canvas_sides = on_canvas[:, 2:] - on_canvas[:, :2]
    shows = (
        tf.reduce_all(canvas_sides > 0, axis=-1)
        & tf.reduce_all(canvas_sides >= min_side, axis=-1)
        & (share >= MIN_VISIBLE_AREA)
    )
    uncut = tf.reduce_all(clipped == boxes, axis=-1) & tf.reduce_all(canvas_sides > 0, axis=-1)
    return clipped, on_canvas, shows | uncut
