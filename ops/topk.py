"""The k best (anchor, class) pairs without sorting all of them."""

import tensorflow as tf

from tpu_retinamask.ops.select import select


def top_k_anchors(scores: tf.Tensor, k: int, among: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return the k best pairs of anchor and class.

    Works in two stages: the pairs among the k best all belong to the k anchors with the best top class
    (if an anchor is not among these, k anchors beat its best pair), so [N * C] is never sorted. Exact
    but for the order of equal scores.

    Args:
      scores: [B, N, C] float32, probabilities or logits: what is larger is better.
      k: pairs to return; cut to N * C.
      among: [B, N] bool, the anchors to choose from; of others pairs are returned where there are not k, with the
        lowest float32 as their score. None: all. Only the maxima and the chosen are masked, not [N, C].

    Returns:
      scores [B, k] in falling order, anchor [B, k] int32 and class [B, k] int32.
    """
    num_anchors, num_classes = scores.shape[1:]
    best = tf.reduce_max(scores, axis=2)  # [B, N]
    best = best if among is None else select(among, best, best.dtype.min)
    _, anchor = tf.math.top_k(best, min(k, num_anchors))  # [B, k1]
    candidates = tf.gather(scores, anchor, batch_dims=1)  # [B, k1, C]
    if among is not None:
        candidates = select(tf.gather(among, anchor, batch_dims=1)[:, :, None], candidates, best.dtype.min)
    flat = tf.reshape(candidates, [-1, anchor.shape[1] * num_classes])
    pair_scores, pair = tf.math.top_k(flat, min(k, num_anchors * num_classes))  # [B, k]
    return pair_scores, tf.gather(anchor, pair // num_classes, batch_dims=1), pair % num_classes
