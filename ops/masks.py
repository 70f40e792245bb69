"""Instance masks cut out of, and put back into, boxes."""

import tensorflow as tf

from tpu_retinamask.ops.roi_align import SEMANTICS, interpolation_matrix

# A region equal to its box, R = 112 and S = 28, samples midway between two cells: at an edge of the mask
# the value is one half, and without a margin rounding would decide, differently on every device.
_HALF = 0.5 - 1e-3


def crop_masks(
    masks: tf.Tensor,
    boxes: tf.Tensor,
    rois: tf.Tensor,
    matched: tf.Tensor,
    size: int,
    *,
    binary: bool = True,
    semantics: str = "aligned",
) -> tf.Tensor:
    """Cut each region's target out of the mask of its matched instance.

    Masks are stored cropped to their own box at R x R, so the region is first moved into the frame of
    that box; outside the box the mask is 0. Samples are bilinear. Semantics "aligned": they lie at the
    centres of the region's cells. "crop_and_resize": at the centres of the pixels
    `linspace(y1, y2 - 1, S)`, from the region's first row to its last (keras-maskrcnn).

    Args:
      masks: [B, M, R, R] uint8, 1 = instance.
      boxes: [B, M, 4] float32, the boxes the masks are cropped to.
      rois: [B, K, 4] float32.
      matched: [B, K] int32, row of `masks`.
      size: S, cells a side.
      binary: threshold at one half, which itself counts as instance.
      semantics: one of `roi_align.SEMANTICS`.

    Returns:
      [B, K, S, S] float32; finite for padding.

    Raises:
      ValueError: unknown semantics.
    """
    if semantics not in SEMANTICS:
        raise ValueError(f"crop_masks: semantics {semantics!r} is not one of {SEMANTICS}")
    side = masks.shape[-1]
    masks = tf.cast(tf.gather(masks, matched, batch_dims=1), tf.float32)  # [B, K, R, R]
    boxes = tf.gather(boxes, matched, batch_dims=1)  # [B, K, 4]
    rows = _resampling_matrix(rois[..., 1], rois[..., 3], boxes[..., 1], boxes[..., 3], size, side, semantics)
    columns = _resampling_matrix(rois[..., 0], rois[..., 2], boxes[..., 0], boxes[..., 2], size, side, semantics)
    cropped = tf.einsum("bkqx,bkpx->bkpq", columns, tf.einsum("bkpy,bkyx->bkpx", rows, masks))
    return tf.cast(cropped >= _HALF, tf.float32) if binary else cropped


def _resampling_matrix(low, high, box_low, box_high, size, side, semantics):
    """Return [B, K, S, R]: the weights that take R mask cells of a box to S cells of a region."""
    # The corner's offset first: far from the origin a position in pixels would lose the small box's digits.
    if semantics == "aligned":
        steps = (tf.range(size, dtype=tf.float32) + 0.5) / size
        offset = (low - box_low)[..., None] + steps * (high - low)[..., None]  # [B, K, S] pixels
    else:
        steps = tf.range(size, dtype=tf.float32) / max(1, size - 1)
        offset = (low - box_low + 0.5)[..., None] + steps * (high - low - 1.0)[..., None]
    relative = offset / tf.maximum(box_high - box_low, 1e-6)[..., None]
    inside = tf.cast((relative >= 0.0) & (relative <= 1.0), tf.float32)[..., None]
    # Between the border and the centre of the outermost cell the mask keeps that cell's value.
    grid = tf.clip_by_value(relative * side - 0.5, 0.0, side - 1.0)
    return interpolation_matrix(grid, side) * inside
