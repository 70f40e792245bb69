"""The losses of keras-maskrcnn on its own tensors: probabilities, targets with a state column, full-size masks.

Training uses `model.losses`, which computes from logits and needs no guard against log 0. These exist for
code that holds the original's tensors, and to compare with its numbers.
"""

import tensorflow as tf

from tpu_retinamask.ops.losses import smooth_l1_loss as smooth_l1_sum
from tpu_retinamask.ops.masks import crop_masks
from tpu_retinamask.ops.matching import match_rois
from tpu_retinamask.ops.select import select

EPSILON = 1e-7  # of Keras: probabilities are clipped to [EPSILON, 1 - EPSILON], and log takes p + EPSILON


def binary_cross_entropy(targets: tf.Tensor, probabilities: tf.Tensor) -> tf.Tensor:
    """Return the cross-entropy of each element as Keras 2.3 computes it from probabilities.

    Args:
      targets: [...] float32 in [0, 1].
      probabilities: [...] float32 in [0, 1]; no gradient where they are clipped.

    Returns:
      [...] float32, at most -log(2 EPSILON).
    """
    p = tf.clip_by_value(probabilities, EPSILON, 1.0 - EPSILON)
    return -(targets * tf.math.log(p + EPSILON) + (1.0 - targets) * tf.math.log(1.0 - p + EPSILON))


def focal_loss(y_true: tf.Tensor, y_pred: tf.Tensor, *, alpha: float = 0.25, gamma: float = 2.0) -> tf.Tensor:
    """Return the focal loss over the anchors that are not ignored, divided by max(1, #positive anchors).

    Args:
      y_true: [B, N, C + 1] float32: one column a class, which may be soft (above one half counts as
        positive), then the anchor's state: 1 positive, 0 negative, -1 ignored.
      y_pred: [B, N, C] float32 probabilities.
      alpha: weight of positive classes; the others weigh 1 - alpha.
      gamma: focus on hard examples.

    Returns:
      Scalar float32. Source: arXiv 1708.02002, as keras-retinanet computes it.
    """
    labels, state = y_true[..., :-1], y_true[..., -1]  # [B, N, C], [B, N]
    positive = labels > 0.5
    weight = select(positive, alpha, tf.constant(1.0 - alpha)) * select(positive, 1.0 - y_pred, y_pred) ** gamma
    counted = tf.cast(tf.not_equal(state, -1.0), tf.float32)[..., None]
    return tf.reduce_sum(counted * weight * binary_cross_entropy(labels, y_pred)) / _positives(state)


def smooth_l1_loss(y_true: tf.Tensor, y_pred: tf.Tensor, *, sigma: float = 3.0) -> tf.Tensor:
    """Return the smooth L1 loss over positive anchors, divided by max(1, #positive anchors).

    Args:
      y_true: [B, N, 4 + 1] float32: encoded box, then the anchor's state: 1 positive, 0 negative, -1 ignored.
      y_pred: [B, N, 4] float32.
      sigma: the square turns into a line at 1 / sigma**2.

    Returns:
      Scalar float32.
    """
    state = y_true[..., 4]
    return smooth_l1_sum(y_pred, y_true[..., :4], tf.equal(state, 1.0), beta=1.0 / sigma**2) / _positives(state)


def mask_loss(
    y_true: tf.Tensor,
    y_pred: tf.Tensor,
    image_size: tuple[int, int],
    *,
    mask_size: int = 28,
    iou_threshold: float = 0.5,
) -> tf.Tensor:
    """Return the mask loss of keras-maskrcnn's two tensors.

    Args:
      y_true: [B, M, 4 + 1 + 2 + H * W] float32: box, label, width, height, mask row by row; zeros where padded.
      y_pred: [B, K, 4 + S * S * C] float32: box, then the mask probabilities of every class.
      image_size: (H, W). The original reads it from the width and height columns, which XLA cannot: they are
        data, and a reshape needs them before there is any.
      mask_size: S.
      iou_threshold: see `region_mask_loss`.

    Returns:
      Scalar float32, see `region_mask_loss`.

    Raises:
      ValueError: the columns do not add up.
    """
    height, width = image_size
    if y_true.shape[2] != 7 + height * width:
        raise ValueError(
            f"mask_loss: y_true has {y_true.shape[2]} columns, but an image of {height} x {width} "
            f"(height x width) makes 7 + {height * width}"
        )
    num_classes, rest = divmod(y_pred.shape[2] - 4, mask_size * mask_size)
    if rest or num_classes < 1:
        raise ValueError(
            f"mask_loss: y_pred has {y_pred.shape[2]} columns, which is not 4 + {mask_size} * "
            f"{mask_size} * a number of classes"
        )
    masks = tf.reshape(y_pred[..., 4:], [-1, y_pred.shape[1], mask_size, mask_size, num_classes])
    truth = tf.reshape(y_true[..., 7:], [-1, y_true.shape[1], height, width])
    return region_mask_loss(
        y_pred[..., :4], masks, y_true[..., :4], tf.cast(y_true[..., 4], tf.int32), truth, iou_threshold=iou_threshold
    )


def region_mask_loss(
    boxes: tf.Tensor,
    masks: tf.Tensor,
    truth_boxes: tf.Tensor,
    truth_classes: tf.Tensor,
    truth_masks: tf.Tensor,
    *,
    iou_threshold: float = 0.5,
    cropped: bool = False,
) -> tf.Tensor:
    """Return the mean over images of each one's mean cross-entropy over the pixels of its matched regions.

    A region is matched if its IoU with a true box is at least the threshold; its target is that box's
    mask, interpolated at the centres of the pixels `linspace(y1, y2 - 1, S)`; the matched class's channel
    is compared with it. No gradient reaches the boxes. In keras-maskrcnn it does, through the places
    where the target is sampled, and moves them to where the target is easier: a fault, not kept.

    Args:
      boxes: [B, K, 4] float32 pixels, -1 where padded.
      masks: [B, K, S, S, C] float32 probabilities.
      truth_boxes: [B, M, 4] float32; without area where padded.
      truth_classes: [B, M] int32; anything where padded.
      truth_masks: [B, M, H, W] of the whole image, or [B, M, R, R] of each box where `cropped`; 0 or 1.
      iou_threshold: see above.
      cropped: what `truth_masks` are.

    Returns:
      Scalar float32; exactly 0 with finite gradients where nothing is matched.
    """
    if truth_boxes.shape[1] == 0:
        return tf.reduce_sum(masks) * 0.0  # a batch without any annotation row still has a gradient: zero
    boxes = tf.stop_gradient(boxes)
    iou, matched = match_rois(boxes, _has_area(boxes), truth_boxes, _has_area(truth_boxes))  # [B, K]
    kept = tf.cast(iou >= iou_threshold, tf.float32)
    size = masks.shape[2]
    if cropped:
        targets = crop_masks(truth_masks, truth_boxes, boxes, matched, size, binary=False, semantics="crop_and_resize")
    else:
        targets = crop_full_masks(truth_masks, boxes, matched, size)
    return matched_mask_loss(masks, targets, tf.gather(truth_classes, matched, batch_dims=1), kept)


def matched_mask_loss(masks: tf.Tensor, targets: tf.Tensor, classes: tf.Tensor, kept: tf.Tensor) -> tf.Tensor:
    """Return the mean over images of each one's mean cross-entropy over the pixels of the regions kept.

    Args:
      masks: [B, K, S, S, C] float32 probabilities.
      targets: [B, K, S, S] float32.
      classes: [B, K] int32, the channel to compare.
      kept: [B, K] float32, 0 or 1.

    Returns:
      Scalar float32.
    """
    size = masks.shape[2]
    channels = tf.transpose(masks, [0, 1, 4, 2, 3])  # [B, K, C, S, S]
    own = tf.gather(channels, tf.maximum(classes, 0), batch_dims=2)  # [B, K, S, S]
    per_region = tf.reduce_sum(binary_cross_entropy(targets, own), axis=(2, 3)) * kept
    count = tf.maximum(1.0, tf.reduce_sum(kept, axis=1) * float(size * size))
    return tf.reduce_mean(tf.reduce_sum(per_region, axis=1) / count)


def crop_full_masks(masks: tf.Tensor, rois: tf.Tensor, matched: tf.Tensor, size: int) -> tf.Tensor:
    """Interpolate masks of the whole image at the pixels `linspace(y1, y2 - 1, S)` of each region.

    Args:
      masks: [B, M, H, W], 0 or 1.
      rois: [B, K, 4] float32; may carry a gradient.
      matched: [B, K] int32, row of `masks`.
      size: S.

    Returns:
      [B, K, S, S] float32; 0 outside the image.
    """
    _, rows, height, width = masks.shape
    flat = tf.reshape(masks, [-1, rows * height * width])
    start = (matched * (height * width))[..., None, None]  # [B, K, 1, 1]
    steps = tf.range(size, dtype=tf.float32) / max(1, size - 1)
    out = 0.0
    for y, wy in _neighbours(rois[..., 1, None] + steps * (rois[..., 3] - rois[..., 1] - 1.0)[..., None], height):
        for x, wx in _neighbours(rois[..., 0, None] + steps * (rois[..., 2] - rois[..., 0] - 1.0)[..., None], width):
            index = start + y[..., :, None] * width + x[..., None, :]  # [B, K, S, S]
            values = tf.cast(tf.gather(flat, index, batch_dims=1), tf.float32)
            out += values * wy[..., :, None] * wx[..., None, :]
    return out


def _neighbours(positions, cells):
    """Return [(index, weight), (index, weight)] of the cells left and right of positions [..., S]."""
    inside = tf.cast((positions >= 0.0) & (positions <= cells - 1.0), tf.float32)
    positions = tf.clip_by_value(positions, 0.0, cells - 1.0)
    low = tf.floor(positions)
    fraction = positions - low
    return [
        (tf.cast(low, tf.int32), (1.0 - fraction) * inside),
        (tf.cast(tf.math.ceil(positions), tf.int32), fraction * inside),
    ]


def _has_area(boxes):
    return (boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1])


def _positives(state):
    return tf.maximum(1.0, tf.reduce_sum(tf.cast(tf.equal(state, 1.0), tf.float32)))
