"""Non-maximum suppression with fixed shapes, as the fixed point of a boolean recurrence."""

import tensorflow as tf

from tpu_retinamask.ops.boxes import pairwise_iou


def nms(boxes: tf.Tensor, valid: tf.Tensor, iou_threshold: float, classes: tf.Tensor | None = None) -> tf.Tensor:
    """Return which of the sorted boxes survive greedy non-maximum suppression.

    Greedy suppression is the only solution of `keep_i = valid_i and no j < i with keep_j and iou_ij > t`.
    Iterating that equation from `keep = valid` settles at least one more leading box a round, and in
    practice all of them within the depth of the longest chain of suppressions, a handful of rounds.

    Args:
      boxes: [B, k, 4] float32, best score first. Corners may come in either order, as in TensorFlow's own
        suppression: a corner coder can decode a box inside out.
      valid: [B, k] bool; padding neither survives nor suppresses.
      iou_threshold: boxes with a larger IoU (strictly) than this suppress each other.
      classes: [B, k] int32; boxes of different classes never meet. None: all boxes meet.

    Returns:
      keep [B, k] bool.
    """
    k = boxes.shape[1]
    low, high = boxes[..., :2], boxes[..., 2:]
    boxes = tf.concat([tf.minimum(low, high), tf.maximum(low, high)], axis=-1)
    overlap = pairwise_iou(boxes, boxes) > iou_threshold  # [B, k, k]
    if classes is not None:
        overlap &= classes[:, :, None] == classes[:, None, :]
    earlier = tf.range(k)[:, None] < tf.range(k)[None, :]  # [k, k]: j < i
    suppresses = overlap & earlier[None]  # [B, j, i]

    def not_settled(_, changed):
        return changed

    def one_round(keep, _):
        suppressed = tf.reduce_any(keep[:, :, None] & suppresses, axis=1)  # [B, i]
        new = valid & ~suppressed
        return new, tf.reduce_any(tf.not_equal(new, keep))

    keep, _ = tf.while_loop(not_settled, one_round, (valid, tf.constant(True)))
    return keep
