"""Sums over the picture's cells alone, and their gradients."""

import numpy as np
import pytest
import tensorflow as tf

from tpu_retinamask.ops.content_sums import content_squares, content_sum

# Parts of one row and of two, alone and with rows that are left over; fewer rows than parts; one cell.
_SHAPES = [(8, 3), (16, 5), (11, 4), (23, 2), (3, 6), (1, 1)]


def _features(shape):
    random = np.random.default_rng(0)
    x = random.normal(size=(3, *shape, 2))
    inside = np.zeros((3, *shape, 1))
    inside[0], inside[1, : shape[0] // 2 + 1, : shape[1] // 2 + 1] = (
        1.0,
        1.0,
    )  # all of the canvas, a corner of it, no picture at all
    return tf.constant(x), tf.constant(inside), tf.constant(random.normal(size=(3, 2)))


@pytest.mark.parametrize("shape", _SHAPES)
def test_the_sum_counts_the_picture_alone(shape):
    x, inside, upstream = _features(shape)
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = content_sum(x, inside)
    np.testing.assert_allclose(total, np.sum(x.numpy() * inside.numpy(), axis=(1, 2)), atol=1e-12)
    expected = np.broadcast_to(inside * upstream[:, None, None, :], x.shape)
    np.testing.assert_allclose(tape.gradient(total, x, upstream), expected, atol=1e-12)


@pytest.mark.parametrize("of_batch", [False, True])
@pytest.mark.parametrize("shape", _SHAPES)
def test_the_squares_are_of_distances_in_the_picture_alone(shape, of_batch):
    x, inside, upstream = _features(shape)
    mean = tf.constant(np.random.default_rng(1).normal(size=(1 if of_batch else 3, 2)))
    with tf.GradientTape() as tape, tf.GradientTape() as plain:
        tape.watch(x)
        plain.watch(x)
        total = content_squares(x, mean, inside)
        expected = tf.reduce_sum(((x - mean[:, None, None, :]) * inside) ** 2, axis=(1, 2))
    np.testing.assert_allclose(total, expected, atol=1e-12)
    np.testing.assert_allclose(tape.gradient(total, x, upstream), plain.gradient(expected, x, upstream), atol=1e-12)
