"""Layers that leave out what is beside the picture: outputs and gradients are those of the picture alone."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tpu_retinamask.model.layers.content import relu_of_content
from tpu_retinamask.model.layers.normalization import make_normalization

_SIZE, _CANVAS = (5, 7), (8, 9)


def _on_canvas(picture, beside):
    """Return pictures [B, h, w, F] at the top left of a canvas that is filled with a number, and the canvas' mask."""
    height, width = _SIZE
    x = np.full((picture.shape[0], *_CANVAS, picture.shape[-1]), beside, np.float32)
    inside = np.zeros((picture.shape[0], *_CANVAS, 1), np.float32)
    x[:, :height, :width], inside[:, :height, :width] = picture, 1.0
    return tf.constant(x), tf.constant(inside)


@pytest.mark.parametrize("kind, kept", [("group", keras.layers.GroupNormalization(16, epsilon=1e-5)), ("batch", None)])
def test_statistics_and_gradients_are_those_of_the_picture_alone(kind, kept):
    random = np.random.default_rng(0)
    # Far from zero, as on a plain ground: squares taken of the features themselves would lose half of the digits.
    picture = (random.normal(size=(2, *_SIZE, 32)) + 30.0).astype(np.float32)
    weights = [random.normal(size=32).astype(np.float32) for _ in range(2)]  # gamma and beta
    upstream = random.normal(size=picture.shape).astype(np.float32)
    kept = kept or keras.layers.BatchNormalization(epsilon=1e-5, momentum=0.9)
    layer = make_normalization(kind, "norm")
    found = []
    for norm, (x, inside) in ((kept, (tf.constant(picture), None)), (layer, _on_canvas(picture, 100.0))):
        norm.build(x.shape)
        for variable, value in zip((norm.gamma, norm.beta), weights):
            variable.assign(value)
        seed = tf.constant(upstream) if inside is None else _on_canvas(upstream, 0.0)[0]
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = norm(x, training=True, inside=inside) if norm is layer else _keras(norm, x)
        gradients = tape.gradient(y, [x, norm.gamma.value, norm.beta.value], seed)
        found.append([part.numpy() for part in (y, *gradients)])
        found[-1][:2] = [part[:, : _SIZE[0], : _SIZE[1]] for part in found[-1][:2]]
        if kind == "batch":
            found[-1] += [norm.moving_mean.numpy(), norm.moving_variance.numpy()]
    for ours, theirs in zip(found[1], found[0], strict=True):
        # Sums in another order, of numbers 30 times as large as what they differ by.
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def _keras(norm, x):
    return norm(x, training=True) if isinstance(norm, keras.layers.BatchNormalization) else norm(x)


def test_relu_is_zero_beside_the_picture_and_lets_no_gradient_through_there():
    picture = np.random.default_rng(0).normal(size=(2, *_SIZE, 3)).astype(np.float32)
    x, inside = _on_canvas(picture, 5.0)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = relu_of_content(x, inside)
    np.testing.assert_array_equal(y, _on_canvas(np.maximum(picture, 0.0), 0.0)[0])
    upstream = tf.ones_like(x) * 3.0
    expected = _on_canvas(np.where(picture > 0.0, np.float32(3.0), np.float32(0.0)), 0.0)[0]
    np.testing.assert_array_equal(tape.gradient(y, x, upstream), expected)
