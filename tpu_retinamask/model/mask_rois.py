"""Choice of the regions whose masks are trained: detections and the ground-truth boxes themselves."""

import tensorflow as tf

from tpu_retinamask.ops.matching import match_rois
from tpu_retinamask.ops.select import select
from tpu_retinamask.structures import Batch, MaskRois


def select_mask_rois(
    batch: Batch,
    detection_boxes: tf.Tensor | None,
    *,
    num_rois: int = 100,
    min_iou: float = 0.5,
    from_truth: bool = True,
) -> MaskRois:
    """Keep a fixed number of regions an image, matched ones first.

    Ground-truth boxes join the detections, so that masks learn from the first step, when no detection
    is good yet (arXiv 1901.03353 section 3.1). Order of preference: matched regions before others, among
    these ground truth before detections, then by IoU.

    Args:
      batch: Batch; boxes, classes and has_mask are read.
      detection_boxes: [B, K, 4] float32, -1 where padded; None: ground truth alone.
      num_rois: R.
      min_iou: a region counts if its IoU with a valid box is at least this.
      from_truth: False: the boxes are no regions themselves (keras-maskrcnn).

    Returns:
      MaskRois, without gradient. A region whose matched box has no mask is not valid.

    Raises:
      ValueError: neither detections nor the boxes are to be regions.
    """
    if detection_boxes is None and not from_truth:
        raise ValueError("select_mask_rois: without detections the ground-truth boxes must be the regions")
    boxes, is_real = batch.boxes, batch.classes >= 0  # [B, M, 4], [B, M]
    is_truth = tf.ones_like(is_real)
    rois, roi_valid = boxes, is_real & from_truth
    if detection_boxes is not None:
        found = detection_boxes[:, :, 2] >= 0.0  # padding is -1
        rois = tf.concat([boxes, detection_boxes], axis=1)  # [B, M + K, 4]
        roi_valid = tf.concat([roi_valid, found], axis=1)
        is_truth = tf.concat([is_truth, tf.zeros_like(found)], axis=1)
    iou, matched = match_rois(rois, roi_valid, boxes, is_real)  # [B, M + K]
    if detection_boxes is None:
        matched = tf.broadcast_to(tf.range(boxes.shape[1])[None], tf.shape(matched))  # equal boxes keep their own
    else:
        own = tf.range(rois.shape[1])[None]
        matched = select(is_truth, own, matched)
    has_mask = tf.gather(batch.has_mask, matched, batch_dims=1)
    valid = roi_valid & (iou >= min_iou) & has_mask
    rank = tf.cast(valid, tf.float32) * (1.0 + iou + 2.0 * tf.cast(is_truth, tf.float32))
    missing = max(0, num_rois - rank.shape[1])
    rank = tf.pad(rank, [[0, 0], [0, missing]])
    rois, matched = tf.pad(rois, [[0, 0], [0, missing], [0, 0]]), tf.pad(matched, [[0, 0], [0, missing]])
    rank, index = tf.math.top_k(rank, num_rois)  # [B, R]
    kept = rank > 0.0
    overflow = tf.reduce_sum(tf.cast(valid, tf.int32), axis=1) - tf.reduce_sum(tf.cast(kept, tf.int32), axis=1)
    rois = tf.gather(rois, index, batch_dims=1)
    return MaskRois(
        boxes=tf.stop_gradient(select(kept[..., None], rois, 0.0)),
        matched=select(kept, tf.gather(matched, index, batch_dims=1), 0),
        valid=kept,
        overflow=overflow,
    )
