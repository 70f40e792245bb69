"""Anchor targets in the form of keras-maskrcnn: one row an anchor, its state in the last column."""

from typing import Any

import numpy as np
import tensorflow as tf

from tpu_retinamask.ops.boxes import CornerBoxCoder
from tpu_retinamask.ops.matching import match_anchors
from tpu_retinamask.structures import IGNORED


def anchor_targets(
    anchors: np.ndarray,
    boxes: tf.Tensor,
    classes: tf.Tensor,
    content_size: tf.Tensor,
    num_classes: int,
    *,
    positive_iou: float = 0.5,
    negative_iou: float = 0.4,
    box_coder: Any = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the regression and classification targets of every anchor.

    Computed in the dtype of the anchors; the original's are float64 (`AnchorGrid.anchors_float64`).

    Args:
      anchors: [N, 4] float32 or float64.
      boxes: [B, M, 4] pixels of the canvas.
      classes: [B, M] int, -1 where padded.
      content_size: [B, 2], height and width of each image on the canvas.
      num_classes: C.
      positive_iou: anchors with at least this IoU are positive.
      negative_iou: anchors above this and below `positive_iou` are ignored.
      box_coder: `encode` makes the offsets; None: CornerBoxCoder(), that of keras-retinanet.

    Returns:
      regression [B, N, 4 + 1] float32, offsets of every anchor against the first box of largest IoU (zeros
      in an image without boxes) and its state, and classification [B, N, C + 1] float32, one-hot where
      positive and the state. State: 1 positive, 0 negative, -1 ignored.
    """
    anchors = np.asarray(anchors)
    boxes, classes = np.asarray(boxes, anchors.dtype), np.asarray(classes, np.int32)
    batch, rows = classes.shape
    if rows == 0:  # a row of padding, so that there is something to gather from
        boxes, classes = np.zeros((batch, 1, 4), anchors.dtype), np.full((batch, 1), -1, np.int32)
    labels, matched = match_anchors(
        tf.constant(anchors),
        tf.constant(boxes),
        tf.constant(classes),
        tf.constant(np.asarray(content_size)),
        positive_iou=positive_iou,
        negative_iou=negative_iou,
        best_match_iou=None,
    )  # [B, N] each
    best = tf.gather(tf.constant(boxes), matched, batch_dims=1)  # [B, N, 4]
    offsets = (box_coder or CornerBoxCoder()).encode(best, tf.constant(anchors)[None])
    any_box = tf.cast(np.any(classes >= 0, axis=1), tf.float32)[:, None, None]
    state = tf.cast(labels >= 0, tf.float32) - tf.cast(tf.equal(labels, IGNORED), tf.float32)
    regression = tf.concat([tf.cast(offsets, tf.float32) * any_box, state[..., None]], axis=-1)
    classification = tf.concat([tf.one_hot(labels, num_classes), state[..., None]], axis=-1)
    return regression, classification
