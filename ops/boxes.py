"""Boxes `x1, y1, x2, y2` in pixels, half-open: area, overlap, clipping and the two box coders."""

import dataclasses
import math

import tensorflow as tf

from tpu_retinamask.ops.select import select


def box_area(boxes: tf.Tensor) -> tf.Tensor:
    """Return the area of boxes [..., 4] as [...], square pixels; a box turned inside out has area 0."""
    x1, y1, x2, y2 = tf.unstack(boxes, axis=-1)
    return tf.maximum(x2 - x1, 0.0) * tf.maximum(y2 - y1, 0.0)


def pairwise_iou(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Return the intersection over union of every box in `a` with every box in `b`.

    Args:
      a: [..., n, 4] float32.
      b: [..., m, 4] float32, leading dimensions broadcast against those of `a`.

    Returns:
      [..., n, m] float32; 0 where both boxes have no area (padding).
    """
    ax1, ay1, ax2, ay2 = tf.unstack(a[..., :, None, :], axis=-1)  # [..., n, 1]
    bx1, by1, bx2, by2 = tf.unstack(b[..., None, :, :], axis=-1)  # [..., 1, m]
    width = tf.maximum(tf.minimum(ax2, bx2) - tf.maximum(ax1, bx1), 0.0)
    height = tf.maximum(tf.minimum(ay2, by2) - tf.maximum(ay1, by1), 0.0)
    intersection = width * height
    union = box_area(a)[..., :, None] + box_area(b)[..., None, :] - intersection
    # Two boxes without area give 0 / 0; the smallest normal number keeps every other ratio exact.
    return intersection / tf.maximum(union, 1e-30)


def clip_boxes(boxes: tf.Tensor, limits: tf.Tensor) -> tf.Tensor:
    """Clip boxes to an image.

    Args:
      boxes: [B, n, 4] float32.
      limits: [2] or [B, 2]; the largest y and x allowed (height, width).

    Returns:
      [B, n, 4]; boxes wholly outside lose their area.
    """
    limits = tf.cast(limits, boxes.dtype)
    high = tf.stack([limits[..., 1], limits[..., 0]] * 2, axis=-1)  # [4] or [B, 4], as x, y, x, y
    high = high[None, None, :] if limits.shape.rank == 1 else high[:, None, :]
    return tf.minimum(tf.maximum(boxes, 0.0), high)


def centres_inside(boxes: tf.Tensor, content_size: tf.Tensor) -> tf.Tensor:
    """Return which boxes have their centre in each image's picture.

    Args:
      boxes: [N, 4] float32 or float64.
      content_size: [B, 2], height and width of the picture at the top left of the canvas.

    Returns:
      [B, N] bool; the left and upper border belong to the picture, the right and lower do not.
    """
    content_size = tf.cast(content_size, boxes.dtype)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2  # [N, 2] as x, y
    height, width = content_size[:, :1], content_size[:, 1:]  # [B, 1]
    return (
        (centre[None, :, 0] < width)
        & (centre[None, :, 1] < height)
        & (centre[None, :, 0] >= 0.0)
        & (centre[None, :, 1] >= 0.0)
    )


@dataclasses.dataclass(frozen=True)
class CornerBoxCoder:
    """Offsets of the four corners in units of the anchor's side (keras-retinanet).

    `delta = ((box - anchor) / (anchor width or height) - mean) / std`, one each for x1, y1, x2, y2.
    """

    mean: float = 0.0
    std: float = 0.2

    def encode(self, boxes: tf.Tensor, anchors: tf.Tensor) -> tf.Tensor:
        """Return deltas [..., 4] of boxes [..., 4] against anchors [..., 4] (broadcast)."""
        return ((boxes - anchors) / _sides(anchors) - self.mean) / self.std

    def decode(self, deltas: tf.Tensor, anchors: tf.Tensor) -> tf.Tensor:
        """Return the boxes [..., 4] that `encode` gives `deltas` for."""
        return anchors + (deltas * self.std + self.mean) * _sides(anchors)


@dataclasses.dataclass(frozen=True)
class CenterBoxCoder:
    """Shift of the centre and logarithm of the size (Fast R-CNN, arXiv 1504.08083), the paper's choice.

    `dx = wx (cx - ax) / aw`, `dy = wy (cy - ay) / ah`, `dw = ww log(w / aw)`, `dh = wh log(h / ah)`.
    """

    weights: tuple = (10.0, 10.0, 5.0, 5.0)
    max_log_ratio: float = math.log(1000.0 / 16)  # a wild early prediction must not overflow exp

    def encode(self, boxes: tf.Tensor, anchors: tf.Tensor) -> tf.Tensor:
        """Return deltas [..., 4] of boxes [..., 4] against anchors [..., 4] (broadcast)."""
        centre, size = _center_size(boxes)
        anchor_centre, anchor_size = _center_size(anchors)
        # Padding boxes have no size; their deltas are never used but must stay finite.
        log_ratio = tf.math.log(tf.maximum(size, 1e-6) / anchor_size)
        return tf.concat([(centre - anchor_centre) / anchor_size, log_ratio], axis=-1) * self.weights

    def decode(self, deltas: tf.Tensor, anchors: tf.Tensor) -> tf.Tensor:
        """Return the boxes [..., 4] that `encode` gives `deltas` for; sizes are capped at 62.5 anchors."""
        deltas = deltas / self.weights
        anchor_centre, anchor_size = _center_size(anchors)
        centre = anchor_centre + deltas[..., :2] * anchor_size
        half = tf.exp(tf.minimum(deltas[..., 2:], self.max_log_ratio)) * anchor_size / 2
        return tf.concat([centre - half, centre + half], axis=-1)


def _sides(boxes):
    size = boxes[..., 2:] - boxes[..., :2]
    return tf.concat([size, size], axis=-1)  # [..., 4] as w, h, w, h


def _center_size(boxes):
    low, high = boxes[..., :2], boxes[..., 2:]
    return (low + high) / 2, high - low


def pad_invalid(boxes: tf.Tensor, valid: tf.Tensor, fill: float = -1.0) -> tf.Tensor:
    """Replace rows of boxes [..., 4] where valid [...] is False by `fill`."""
    return select(valid[..., None], boxes, fill)
