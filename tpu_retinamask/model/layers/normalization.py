"""The normalisation that a backbone puts after its convolutions; its statistics are of the pictures alone."""

import math

import keras
import tensorflow as tf

from tpu_retinamask.errors import SettingError
from tpu_retinamask.ops.content_sums import content_squares, content_sum
from tpu_retinamask.ops.replicas import sum_over_replicas

NORMALIZATIONS = ("frozen", "batch", "group")
AFTER = ("none", "group")  # what may follow a convolution of the pyramid and the heads
GROUP_WIDTH = 4  # channels of a group there


def make_normalization(kind: str, name: str, epsilon: float = 1e-5, *, groups: int = 16) -> keras.Layer:
    """Build the normalisation layer that a backbone puts after each convolution.

    It is called `layer(x, training=..., inside=...)`: inside [B, h, w, 1] is 1 in the cells of the picture and 0 beside
    it (`layers.content.Content.mask`), None: the canvas is all picture.

    Args:
      kind: "frozen" batch normalisation (statistics and scale never change; for pre-trained weights), "batch"
        (synchronised over replicas) or "group" (by image).
      name: of the layer.
      epsilon: added to the variance.
      groups: of "group"; they divide the channels.

    Raises:
      SettingError: another kind.
    """
    check_normalization(kind)
    if kind == "group":
        return GroupNormalization(groups=groups, epsilon=epsilon, name=name)
    frozen = kind == "frozen"
    # Statistics of one replica alone would differ between replicas and be lost by a checkpoint.
    return BatchNormalization(epsilon=epsilon, momentum=0.9, synchronized=not frozen, trainable=not frozen, name=name)


def check_normalization(kind: str) -> None:
    """Raise SettingError for a kind that is none of NORMALIZATIONS."""
    if kind not in NORMALIZATIONS:
        raise SettingError(f"normalization {kind!r} is not one of {NORMALIZATIONS}")


class Identity(keras.layers.Layer):
    """No normalisation, called as one."""

    def call(self, inputs: tf.Tensor, training: bool = False, inside: tf.Tensor | None = None) -> tf.Tensor:
        """Return what is given."""
        del training, inside
        return inputs


def norm_after(conv: keras.layers.Conv2D, kind: str) -> keras.layers.Layer:
    """Build the normalisation layer after a convolution of the pyramid or of a head; called as `make_normalization`'s.

    Args:
      conv: the layer; what follows it is named after it.
      kind: one of AFTER.
    """
    if kind == "none":
        return Identity(name=f"{conv.name}_norm")
    groups = math.gcd(conv.filters, max(1, conv.filters // GROUP_WIDTH))
    return GroupNormalization(groups=groups, epsilon=1e-5, name=f"{conv.name}_norm")


class BatchNormalization(keras.layers.BatchNormalization):
    """Keras' layer, whose statistics count only the cells of pictures, of all replicas."""

    def call(self, inputs: tf.Tensor, training: bool = False, inside: tf.Tensor | None = None) -> tf.Tensor:
        """Normalise [B, h, w, F] by the batch's statistics in training, by the running ones otherwise."""
        if inside is None or not (training and self.trainable):
            return super().call(inputs, training=training)
        x, inside = tf.cast(inputs, tf.float32), tf.cast(inside, tf.float32)
        sums = [tf.reduce_sum(content_sum(x, inside), axis=0), tf.reduce_sum(inside, axis=(0, 1, 2))]  # [F], [1]
        total, count = tf.split(sum_over_replicas(tf.concat(sums, 0)), [x.shape[-1], 1])
        count = tf.maximum(count, 1.0)
        mean = total / count
        # Of distances, not of squares: on a plain ground the mean is many times the deviation.
        variance = sum_over_replicas(tf.reduce_sum(content_squares(x, mean[None], inside), axis=0)) / count
        for running, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            running.assign(running * self.momentum + value * (1.0 - self.momentum))
        scale = self.gamma * tf.math.rsqrt(variance + self.epsilon)
        return tf.cast(x * scale + (self.beta - mean * scale), self.compute_dtype)


class GroupNormalization(keras.layers.GroupNormalization):
    """Keras' layer, whose statistics count only the cells of the picture."""

    def call(self, inputs: tf.Tensor, training: bool = False, inside: tf.Tensor | None = None) -> tf.Tensor:
        """Normalise [B, h, w, F] by the mean and variance of each image's groups of channels."""
        del training  # the same in both
        if inside is None:
            return super().call(inputs)
        x, inside = tf.cast(inputs, tf.float32), tf.cast(inside, tf.float32)
        count = tf.maximum(tf.reduce_sum(inside, axis=(1, 2, 3)), 1.0)[:, None]  # [B, 1]
        mean = self._of_groups(content_sum(x, inside) / count)
        variance = self._of_groups(content_squares(x, mean, inside) / count)
        scale = self.gamma * tf.math.rsqrt(variance + self.epsilon)  # [B, F]
        offset = self.beta - mean * scale
        return tf.cast(x * scale[:, None, None, :] + offset[:, None, None, :], self.compute_dtype)

    def _of_groups(self, of_channels: tf.Tensor) -> tf.Tensor:
        """Return the mean of each group for each of its channels, [B, F] of [B, F]."""
        channels = of_channels.shape[-1]
        width = channels // self.groups
        means = tf.reduce_mean(tf.reshape(of_channels, [-1, self.groups, width]), axis=2)
        return tf.repeat(means, width, axis=1)
