"""The last two layers of a mask head as one operation, whose gradient passes over its input once less."""

import tensorflow as tf

from tpu_retinamask.ops.select import select


def relu_dot(x: tf.Tensor, bias: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Return `relu(x + bias)` times the weights of each region, summed over channels.

    x is the largest tensor of a mask head, and the gradient of the bias is that of x summed over all cells. What
    depends on the region alone is taken out of that sum: over the cells only the upstream gradient is summed, where the
    ReLU lets it through, beside the sum that the gradient of the weights is. So nothing reads the gradient of x for it.

    Args:
      x: [R, S, F], what a layer without bias gives at the S cells of R regions.
      bias: [F].
      weights: [R, F], in the dtype of x, as the bias.

    Returns:
      [R, S] in the dtype of x. The gradients of bias and weights are summed in float32.
    """
    return _relu_dot(x, bias, weights)


@tf.custom_gradient
def _relu_dot(x, bias, weights):
    active = tf.nn.relu(x + bias)

    def gradient(upstream):
        through = active > 0  # [R, S, F]
        d_x = select(through, upstream[:, :, None] * weights[:, None], 0.0)
        exact = tf.cast(upstream, tf.float32)[:, :, None]
        d_weights = tf.reduce_sum(exact * tf.cast(active, tf.float32), axis=1)  # [R, F]
        let_through = tf.reduce_sum(select(through, exact, 0.0), axis=1)  # [R, F]
        d_bias = tf.reduce_sum(let_through * tf.cast(weights, tf.float32), axis=0)
        return d_x, tf.cast(d_bias, bias.dtype), tf.cast(d_weights, weights.dtype)

    return tf.einsum("rsf,rf->rs", active, weights), gradient
