"""Non-maximum suppression with fixed shapes: block after block, each the fixed point of a boolean recurrence."""

import tensorflow as tf

from tpu_retinamask.ops.boxes import pairwise_iou
from tpu_retinamask.ops.select import select

_BLOCK = 512  # boxes settled together; a matrix of all pairs of 5000 candidates is one of 25 M overlaps an image


def nms(
    boxes: tf.Tensor,
    valid: tf.Tensor,
    iou_threshold: float,
    classes: tf.Tensor | None = None,
    enough: int | None = None,
    block: int = _BLOCK,
) -> tf.Tensor:
    """Return which of the sorted boxes survive greedy non-maximum suppression.

    The boxes are taken a block at a time, best first. What survived of the blocks before suppresses first; within
    the block greedy suppression is the only solution of `keep_i = valid_i and no j < i with keep_j and iou_ij > t`.
    Iterating that equation from `keep = valid` settles at least one more leading box a round, and in practice all of
    them within the depth of the longest chain of suppressions, a handful of rounds. Blocks are taken until no image
    has a valid box left, or every image has enough survivors.

    Args:
      boxes: [B, k, 4] float32, best score first. Corners may come in either order, as in TensorFlow's own
        suppression: a corner coder can decode a box inside out.
      valid: [B, k] bool; padding neither survives nor suppresses.
      iou_threshold: boxes with a larger IoU (strictly) than this suppress each other.
      classes: [B, k] int32; boxes of different classes never meet. None: all boxes meet.
      enough: only so many survivors of an image are wanted, the best; None: all.
      block: boxes taken together.

    Returns:
      keep [B, k] bool; at most `enough` of an image.
    """
    batch, k = tf.shape(boxes)[0], boxes.shape[1]
    enough = k if enough is None else min(enough, k)
    low, high = boxes[..., :2], boxes[..., 2:]
    boxes = tf.concat([tf.minimum(low, high), tf.maximum(low, high)], axis=-1)
    if classes is None:
        classes = tf.zeros_like(valid, tf.int32)
    side = min(block, k)
    count = -(-k // side)
    parts = [_in_blocks(part, count, side) for part in (boxes, valid, classes)]  # [B, n, S, ...]
    # Behind the last valid box of an image nothing is to be found.
    end = tf.reduce_max(tf.cast(valid, tf.int32) * (tf.range(k) + 1), axis=1)  # [B]
    earlier = tf.range(side)[:, None] < tf.range(side)[None, :]  # [S, S]: j < i

    def wanted(index, keep, kept_boxes, kept_classes, kept):
        return tf.reduce_any((index * side < end) & (kept < enough))

    def one_block(index, keep, kept_boxes, kept_classes, kept):
        box, here, label = (tf.gather(part, index, axis=1) for part in parts)  # [B, S, ...]
        taken = tf.range(enough)[None] < kept[:, None]  # [B, E]
        by_kept = _suppresses(kept_boxes, kept_classes, box, label, iou_threshold) & taken[:, :, None]
        here &= ~tf.reduce_any(by_kept, axis=1)
        here = _settle(here, _suppresses(box, label, box, label, iou_threshold) & earlier[None])
        # A sum over pairs: the TPU's compiler prices it, and a cumulative sum not.
        before = tf.reduce_sum(tf.cast(here[:, :, None] & earlier[None], tf.int32), axis=1)
        place = kept[:, None] + before  # [B, S]
        here &= place < enough
        moves = (place[:, :, None] == tf.range(enough)[None, None]) & here[:, :, None]  # [B, S, E], one a row at most
        kept_boxes += tf.reduce_sum(select(moves[..., None], box[:, :, None], 0.0), axis=1)
        kept_classes += tf.reduce_sum(select(moves, label[:, :, None], 0), axis=1)
        kept += tf.reduce_sum(tf.cast(here, tf.int32), axis=1)
        keep |= (tf.range(count)[None, :, None] == index) & here[:, None]
        return index + 1, keep, kept_boxes, kept_classes, kept

    start = (
        tf.constant(0),
        tf.zeros_like(parts[1]),
        tf.zeros([batch, enough, 4]),
        tf.zeros([batch, enough], tf.int32),
        tf.zeros([batch], tf.int32),
    )
    keep = tf.while_loop(wanted, one_block, start)[1]
    return tf.reshape(keep, [-1, count * side])[:, :k]


def _in_blocks(values, count, side):
    """Return [B, k, ...] as [B, n, S, ...], padded with zeros: of `valid` with False."""
    rest = values.shape[2:]
    padded = tf.pad(values, [[0, 0], [0, count * side - values.shape[1]], *[[0, 0]] * len(rest)])
    return tf.reshape(padded, [-1, count, side, *rest])


def _suppresses(boxes, classes, others, other_classes, iou_threshold):
    """Return [B, n, m]: of one class, and overlapping by more than the threshold."""
    return (pairwise_iou(boxes, others) > iou_threshold) & (classes[:, :, None] == other_classes[:, None, :])


def _settle(valid, suppresses):
    """Return the fixed point `keep_i = valid_i and no j with keep_j and suppresses_ji`, [B, S] of [B, S, S]."""

    def one_round(keep, _):
        new = valid & ~tf.reduce_any(keep[:, :, None] & suppresses, axis=1)  # [B, i]
        return new, tf.reduce_any(tf.not_equal(new, keep))

    return tf.while_loop(lambda _, changed: changed, one_round, (valid, tf.constant(True)))[0]
