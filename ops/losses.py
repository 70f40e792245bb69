"""Sums of the three losses; the caller divides by a count that holds for all replicas."""

from collections.abc import Sequence

import tensorflow as tf

from tpu_retinamask.ops.select import select
from tpu_retinamask.structures import IGNORED


def sigmoid_focal_loss(
    logits: tf.Tensor,
    labels: tf.Tensor,
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
    per_cell: int = 1,
    class_weights: Sequence[float] | None = None,
) -> tf.Tensor:
    """Return the sum of the sigmoid focal loss, `-alpha_t (1 - p_t)**gamma log(p_t)` (arXiv 1708.02002).

    The one-hot target never exists: an iota over the classes is compared with the label.

    Args:
      logits: [..., N, C].
      labels: [..., N] int32; class id, BACKGROUND (all classes negative) or IGNORED (adds nothing).
      alpha: weight of positives; negatives weigh 1 - alpha.
      gamma: 0 gives alpha-weighted cross-entropy.
      per_cell: A, anchors whose logits a convolution made side by side, as [..., N / A, A * C]. The loss is the same;
        a compiler that lays the last axis out in lanes then neither cuts it up nor writes labels of [..., N, C].
      class_weights: [C], of each class's part of the loss, its positives and negatives alike; None: 1.

    Returns:
      Scalar float32.
    """
    logits = tf.cast(logits, tf.float32)
    classes = logits.shape[-1]
    if per_cell > 1:
        logits = tf.reshape(logits, [-1, logits.shape[-2] // per_cell, per_cell * classes])
        labels = tf.reshape(labels, [-1, labels.shape[-1] // per_cell, per_cell])
    else:
        labels = labels[..., None]
    label = labels[..., :1]  # [..., 1], or that of each column's anchor
    column = tf.range(logits.shape[-1], dtype=tf.int32)
    for anchor in range(1, per_cell):
        label = select(column >= anchor * classes, labels[..., anchor : anchor + 1], label)
    positive = tf.equal(column % classes, label)  # [..., A * C]
    toward = select(positive, logits, -logits)  # p_t = sigmoid(toward)
    cross_entropy = tf.nn.softplus(-toward)
    modulation = tf.exp(-gamma * tf.nn.softplus(toward))  # (1 - p_t)**gamma, with a finite gradient everywhere
    weight = select(positive, alpha, tf.constant(1.0 - alpha))
    counted = tf.cast(tf.not_equal(label, IGNORED), tf.float32)
    if class_weights is not None:
        counted *= tf.constant([*class_weights] * per_cell, tf.float32)  # [A * C]
    return tf.reduce_sum(counted * weight * modulation * cross_entropy)


def smooth_l1_loss(
    predicted: tf.Tensor, target: tf.Tensor, positive: tf.Tensor, *, beta: tf.Tensor | float = 1 / 9
) -> tf.Tensor:
    """Return the sum over positives of `d**2 / (2 beta)` where |d| < beta, else `|d| - beta / 2`.

    sigma of keras-retinanet is `beta = 1 / sigma**2`; beta 0 is the L1 loss.

    Args:
      predicted: [..., 4].
      target: [..., 4] float32; may hold anything finite where not positive.
      positive: [...] bool.
      beta: where the square turns into a line; a number, or float32 [4], one a coordinate.

    Returns:
      Scalar float32.
    """
    beta = tf.cast(beta, tf.float32)
    distance = tf.abs(tf.cast(predicted, tf.float32) - target)
    square = 0.5 / tf.maximum(beta, 1e-12) * tf.square(distance)
    loss = select(distance < beta, square, distance - 0.5 * beta)
    return tf.reduce_sum(loss * tf.cast(positive, tf.float32)[..., None])


def distance_moments(predicted: tf.Tensor, target: tf.Tensor, positive: tf.Tensor) -> tf.Tensor:
    """Return count, sum and sum of squares of |predicted - target| over positives, per coordinate.

    Such sums add up over pyramid levels, images and replicas. No gradient flows through them.

    Args:
      predicted: [..., 4].
      target: [..., 4] float32; may hold anything finite where not positive.
      positive: [...] bool.

    Returns:
      [3, 4] float32.
    """
    positive = tf.cast(positive, tf.float32)[..., None]  # [..., 1]
    distance = tf.abs(tf.cast(tf.stop_gradient(predicted), tf.float32) - target) * positive  # [..., 4]
    axes = list(range(distance.shape.rank - 1))
    return tf.stack(
        [tf.reduce_sum(value, axes) for value in (positive * tf.ones_like(distance), distance, tf.square(distance))]
    )


def update_running_moments(
    mean: tf.Tensor, variance: tf.Tensor, sums: tf.Tensor, *, momentum: float = 0.1
) -> tuple[tf.Tensor, tf.Tensor]:
    """Move a running mean and variance towards those of a batch (arXiv 1901.03353 section 3.2).

    Args:
      mean: [4] float32.
      variance: [4] float32.
      sums: [3, 4], of the whole batch, all replicas; see `distance_moments`.
      momentum: share of the batch. A batch that counts nothing moves nothing.

    Returns:
      (mean, variance), [4] each.
    """
    count, total, squares = tf.unstack(sums)
    of_batch = total / tf.maximum(count, 1.0)
    # The variance of the batch itself (divided by n); rounding must not make it negative.
    spread = tf.maximum(squares / tf.maximum(count, 1.0) - tf.square(of_batch), 0.0)
    share = momentum * tf.cast(count > 0, tf.float32)
    return mean + share * (of_batch - mean), variance + share * (spread - variance)


def self_adjusting_beta(
    mean: tf.Tensor, variance: tf.Tensor, *, largest: float = 0.11, smallest: float = 1e-3
) -> tf.Tensor:
    """Return the beta of the self-adjusting smooth L1 loss, `clip(mean - variance)`, [4] as its arguments."""
    return tf.clip_by_value(mean - variance, smallest, largest)


def mask_loss(logits: tf.Tensor, targets: tf.Tensor, valid: tf.Tensor) -> tf.Tensor:
    """Return each image's mean binary cross-entropy over the pixels of its valid regions.

    Args:
      logits: [B, R, S, S], of the matched class.
      targets: [B, R, S, S] float32 in [0, 1].
      valid: [B, R] bool.

    Returns:
      [B] float32; exactly 0 with zero gradients for an image without valid regions.
    """
    valid = tf.cast(valid, tf.float32)
    pixels = float(logits.shape[-1] * logits.shape[-2])
    return mask_loss_sum(logits, targets, valid) / tf.maximum(1.0, pixels * tf.reduce_sum(valid, axis=1))


def mask_loss_sum(logits: tf.Tensor, targets: tf.Tensor, valid: tf.Tensor) -> tf.Tensor:
    """Return each image's sum of the same; see `mask_loss`.

    Args:
      logits: [B, R, S, S].
      targets: [B, R, S, S] float32.
      valid: [B, R] bool or float32.

    Returns:
      [B] float32.
    """
    logits = tf.cast(logits, tf.float32)
    cross_entropy = tf.nn.softplus(logits) - targets * logits  # = -t log p - (1 - t) log(1 - p)
    return tf.reduce_sum(tf.reduce_sum(cross_entropy, axis=(2, 3)) * tf.cast(valid, tf.float32), axis=1)
