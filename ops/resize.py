"""Nearest up-sampling by two and the convolution that follows it."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf


def upsample_nearest(features: tf.Tensor, size: Sequence[int] | None = None) -> tf.Tensor:
    """Resize by the nearest cell, `source = floor(i * in / out)`.

    Up to twice the input, less one, this is repeating every cell and cropping, done by reshaping: the
    gradient of the library's nearest resize has no XLA kernel. Other sizes do not occur
    in a pyramid and are gathered.

    Args:
      features: [B, h, w, F].
      size: (height, width) wanted; None: (2h, 2w).

    Returns:
      [B, height, width, F].
    """
    _, height, width, _ = features.shape
    size = (2 * height, 2 * width) if size is None else tuple(int(side) for side in size)
    return _resize_axis(_resize_axis(features, 1, size[0]), 2, size[1])


def _resize_axis(features, axis, size):
    shape = features.shape.as_list()
    if size not in (2 * shape[axis], 2 * shape[axis] - 1):
        return tf.gather(features, np.arange(size) * shape[axis] // size, axis=axis)
    doubled = tf.stack([features, features], axis=axis + 1)
    shape[axis] *= 2
    doubled = tf.reshape(doubled, [-1, *shape[1:]])
    return doubled[:, :size] if axis == 1 else doubled[:, :, :size]


def conv3x3_after_upsample(features: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Apply nearest x2 up-sampling and a same-padded 3x3 convolution as one 2x2 convolution.

    Each output phase (row parity a, column parity b) sees only 2 x 2 distinct source cells, so the 3x3
    kernel collapses to four 2x2 kernels of summed taps: 4 multiplications an output in place of 9.

    Args:
      features: [B, h, w, F].
      kernel: [3, 3, F, G].

    Returns:
      [B, 2h, 2w, G].
    """
    _, height, width, _ = features.shape
    out = kernel.shape[-1]
    phases = _sum_taps(_sum_taps(kernel, axis=0), axis=1)  # [2a, 2, 2b, 2, F, G]
    stacked = tf.reshape(tf.transpose(phases, [1, 3, 4, 0, 2, 5]), [2, 2, -1, 4 * out])  # [2, 2, F, 4G]
    padded = tf.pad(features, [[0, 0], [1, 1], [1, 1], [0, 0]])
    every = tf.nn.conv2d(padded, stacked, strides=1, padding="VALID")  # [B, h + 1, w + 1, 4G]

    def phase(a, b):
        channels = slice((2 * a + b) * out, (2 * a + b + 1) * out)
        return every[:, a : a + height, b : b + width, channels]  # [B, h, w, G]

    # The columns of a row lie in turn where the channels of both phases follow each other. No tensor has more than five
    # dimensions: the interpreter of TFLite takes no slice of more.
    rows = [tf.concat([phase(a, 0), phase(a, 1)], axis=3) for a in (0, 1)]  # [B, h, w, 2G]
    interleaved = tf.stack(rows, axis=2)  # [B, h, 2, w, 2G]
    return tf.reshape(interleaved, [-1, 2 * height, 2 * width, out])


def _sum_taps(kernel, axis):
    """Replace an axis of 3 taps by two axes: phase, and the 2 taps on the source grid."""
    axis = axis if axis == 0 else 2  # after the first call axis 0 has become two axes
    first, second, third = tf.unstack(kernel, axis=axis)
    even = tf.stack([first, second + third], axis=axis)
    odd = tf.stack([first + second, third], axis=axis)
    return tf.stack([even, odd], axis=axis)
