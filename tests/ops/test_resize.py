"""Up-sampling by reshaping, and the convolution that swallows it."""

import numpy as np
import pytest
import tensorflow as tf
from reference import conv_reference

from tpu_retinamask.ops.resize import conv3x3_after_upsample, upsample_nearest


@pytest.mark.parametrize(
    "source, size",
    [
        ((3, 4), None),
        ((3, 4), (6, 8)),
        ((3, 4), (5, 7)),
        ((3, 4), (6, 7)),
        ((1, 1), (1, 1)),
        ((1, 1), (2, 1)),
        ((3, 5), (11, 17)),
        ((4, 4), (3, 9)),
    ],
)
def test_equals_floor_of_the_position(source, size):
    x = np.random.default_rng(0).normal(size=(2, *source, 3)).astype(np.float32)
    up = upsample_nearest(tf.constant(x), size)
    for b in range(2):
        expected = conv_reference.upsample_nearest(x[b], *(size or (2 * source[0], 2 * source[1])))
        np.testing.assert_array_equal(up[b], expected)


@pytest.mark.parametrize("size", [(6, 8), (5, 7)])
def test_gradient_counts_the_copies(size):
    x = tf.Variable(tf.zeros([1, 3, 4, 1]))
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(upsample_nearest(x, size))
    rows, columns = np.bincount(np.arange(size[0]) // 2), np.bincount(np.arange(size[1]) // 2)
    np.testing.assert_array_equal(tape.gradient(total, x)[0, :, :, 0], np.outer(rows, columns))


@pytest.mark.parametrize("side", [(1, 1), (2, 3), (5, 4)])
def test_fused_convolution_equals_upsample_then_convolve(side):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2, *side, 5)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 5, 4)).astype(np.float32)
    fused = conv3x3_after_upsample(tf.constant(x), tf.constant(kernel))
    for b in range(2):
        up = conv_reference.upsample_nearest(x[b], 2 * side[0], 2 * side[1])
        # 45 float32 products of size 1 summed in another order.
        np.testing.assert_allclose(fused[b], conv_reference.conv2d(up, kernel, np.zeros(4, np.float32)), atol=2e-5)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_fused_gradients_equal_those_of_the_two_steps(jit_compile):
    rng = np.random.default_rng(2)
    x = tf.constant(rng.normal(size=(3, 4, 5, 6)), tf.float32)
    kernel = tf.constant(rng.normal(size=(3, 3, 6, 7)), tf.float32)
    weight = tf.constant(rng.normal(size=(3, 8, 10, 7)), tf.float32)

    def two_steps(x, kernel):
        return tf.nn.conv2d(upsample_nearest(x), kernel, 1, "SAME")

    def gradients(function):
        with tf.GradientTape() as tape:
            tape.watch([x, kernel])
            total = tf.reduce_sum(weight * tf.square(function(x, kernel)))
        return tape.gradient(total, [x, kernel])

    compiled = tf.function(gradients, jit_compile=jit_compile, autograph=False)
    for fused, plain in zip(compiled(conv3x3_after_upsample), gradients(two_steps)):
        # Sums of hundreds of float32 terms in another order, compared with the largest of each tensor.
        np.testing.assert_allclose(fused, plain, atol=2e-5 * np.abs(plain).max())
