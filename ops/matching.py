"""Assignment of anchors and regions to ground-truth boxes."""

import tensorflow as tf

from tpu_retinamask.ops.boxes import centres_inside, pairwise_iou
from tpu_retinamask.ops.select import select
from tpu_retinamask.structures import BACKGROUND, IGNORED

# Anchors that tie for a box (it lies inside many of equal area) differ by the rounding of their
# coordinates, up to 2e-5 of the IoU for a 32 pixel anchor at pixel 2000.
_TIE = 1e-4
# A box of 32 x 64 pixels around an anchor of half its area has an IoU of 0.5, and float32 says 0.49999997. Near a
# threshold an IoU counts as equal to it within the rounding of coordinates below 1400 pixels.
_ROUNDING = 5e-6
_NOT_TAKEN = -2.0  # below every IoU, and below the -1 of padding
TIES = ("all", "nearest")


def first_argmax(values: tf.Tensor, axis: int) -> tf.Tensor:
    """Return the index of the first largest element along an axis, int32.

    Written out because backends differ on which of equal elements an argmax returns.
    """
    return _first(values >= tf.reduce_max(values, axis=axis, keepdims=True), axis)


def _first(true: tf.Tensor, axis: int) -> tf.Tensor:
    """Return the index of the first true element along an axis, int32; the last one where none is."""
    size = true.shape[axis]
    shape = [1] * true.shape.rank
    shape[axis] = size
    index = tf.reshape(tf.range(size, dtype=tf.int32), shape)
    return tf.reduce_min(select(true, index, size - 1), axis=axis)


def match_anchors(
    anchors: tf.Tensor,
    boxes: tf.Tensor,
    classes: tf.Tensor,
    content_size: tf.Tensor,
    *,
    positive_iou: float = 0.5,
    negative_iou: float = 0.4,
    best_match_iou: float | None = 0.0,
    best_match_ties: str = "all",
) -> tuple[tf.Tensor, tf.Tensor]:
    """Assign to every anchor a class, "background" or "ignored", and a ground-truth box.

    An anchor is positive if its IoU with some box is >= `positive_iou`, ignored if it lies in the open
    interval (`negative_iou`, `positive_iou`), else background; in float32 an IoU within 5e-6 of a threshold
    equals it. Anchors whose centre lies outside the
    image's own content are ignored. With best matching (arXiv 1901.03353 section 3.3) each box also
    takes the anchors with which its own IoU is largest, ties included (equal within 1e-4 of the IoU, so
    that rounding does not choose among them), if that IoU exceeds `best_match_iou`: an anchor taken so
    belongs to the box that took it (of several, the one with the larger IoU), whatever its IoU with other
    boxes.

    Args:
      anchors: [N, 4] float32 or float64.
      boxes: [B, M, 4] in the dtype of the anchors.
      classes: [B, M] int32, -1 where padded.
      content_size: [B, 2] int32 or float32; height, width of the image inside the canvas.
      positive_iou: see above.
      negative_iou: see above.
      best_match_iou: see above; None switches best matching off.
      best_match_ties: "all" anchors that tie are taken, or the "nearest" alone, whose centres are nearest to the box's.
        A box smaller than every anchor ties with all that hold it.

    Returns:
      labels [B, N] int32 (class id, BACKGROUND or IGNORED) and matched [B, N] int32, the row of the
      matched box: for anchors that are not positive the first box of largest IoU; 0 without boxes.

    Raises:
      ValueError: negative_iou > positive_iou, or another rule for ties.
    """
    if best_match_ties not in TIES:
        raise ValueError(f"match_anchors: best_match_ties {best_match_ties!r} is not one of {TIES}")
    if negative_iou > positive_iou:
        raise ValueError(f"match_anchors: negative_iou {negative_iou} must not exceed positive_iou {positive_iou}")
    valid = classes >= 0  # [B, M]
    inside = centres_inside(anchors, content_size)  # [B, N]
    iou = select(valid[:, None, :], pairwise_iou(anchors[None], boxes), -1.0)  # [B, N, M]
    best = tf.reduce_max(iou, axis=2)  # [B, N]
    slack = _ROUNDING if best.dtype == tf.float32 else 0.0
    positive = best >= positive_iou - slack
    ignored = (best > negative_iou + slack) & ~positive
    among = iou >= best[:, :, None]  # [B, N, M], the boxes of which the first is matched
    if best_match_iou is not None:
        own = select(inside[:, :, None], iou, -1.0)  # a box cannot take an anchor outside the image
        best_of_box = tf.reduce_max(own, axis=1, keepdims=True)  # [B, 1, M]
        taken = (own >= best_of_box * (1.0 - _TIE)) & (best_of_box > best_match_iou)  # [B, N, M]
        if best_match_ties == "nearest":
            distance = select(taken, _centre_distances(anchors, boxes), iou.dtype.max)
            nearest = tf.reduce_min(distance, axis=1, keepdims=True)  # [B, 1, M]
            taken &= distance <= nearest * (1.0 + _TIE) + _TIE
        largest = tf.reduce_max(select(taken, own, _NOT_TAKEN), axis=2)  # [B, N], IoU with the box that takes
        any_taker = largest > _NOT_TAKEN
        among = select(any_taker[:, :, None], taken & (own >= largest[:, :, None]), among)
        positive |= any_taker
        ignored &= ~any_taker
    # Every pass over all pairs computes the IoUs anew, which is cheaper than to keep them: there is one for both cases.
    matched = _first(among, axis=2)  # [B, N]
    anchor_class = tf.gather(classes, matched, batch_dims=1)  # [B, N]
    labels = select(positive, anchor_class, select(ignored, IGNORED, tf.fill(tf.shape(matched), BACKGROUND)))
    return select(inside, labels, IGNORED), matched


def match_rois(
    rois: tf.Tensor, roi_valid: tf.Tensor, boxes: tf.Tensor, box_valid: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return each region's best valid box and their IoU.

    Args:
      rois: [B, R, 4] float32.
      roi_valid: [B, R] bool.
      boxes: [B, M, 4] float32.
      box_valid: [B, M] bool.

    Returns:
      iou [B, R] float32 (-1 where the region or every box is padding) and matched [B, R] int32.
    """
    pair_valid = roi_valid[:, :, None] & box_valid[:, None, :]
    iou = select(pair_valid, pairwise_iou(rois, boxes), -1.0)  # [B, R, M]
    return tf.reduce_max(iou, axis=2), first_argmax(iou, axis=2)


def _centre_distances(anchors, boxes):
    """Return the squared distance of the centres of anchors [N, 4] and boxes [B, M, 4], pixels, [B, N, M]."""
    of_anchors = (anchors[:, :2] + anchors[:, 2:])[None, :, None] / 2  # [1, N, 1, 2]
    of_boxes = (boxes[..., :2] + boxes[..., 2:])[:, None] / 2  # [B, 1, M, 2]
    dx, dy = (of_anchors[..., axis] - of_boxes[..., axis] for axis in (0, 1))
    return dx * dx + dy * dy
