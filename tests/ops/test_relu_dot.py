"""One operation in place of three: their value, their gradients, and those of the gradients."""

import numpy as np
import pytest
import tensorflow as tf

from tpu_retinamask.ops.relu_dot import relu_dot


def _three_layers(x, bias, weights):
    return tf.einsum("rsf,rf->rs", tf.nn.relu(x + bias), weights)


def _inputs(dtype=np.float32):
    rng = np.random.default_rng(0)
    x, bias, weights, upstream = (rng.normal(size=shape) for shape in ((5, 12, 7), (7,), (5, 7), (5, 12)))
    x[0, :, 2] = 1.5
    bias[2] = -1.5  # their sum is exactly 0, where nothing passes
    return [tf.constant(value.astype(np.float32), dtype) for value in (x, bias, weights, upstream)]


def _run(operation, x, bias, weights, upstream):
    with tf.GradientTape() as tape:
        tape.watch([x, bias, weights])
        y = operation(x, bias, weights)
        total = tf.reduce_sum(y * upstream)
    return [y, *tape.gradient(total, [x, bias, weights])]


@pytest.mark.parametrize("compiled", [False, True])
def test_equals_three_layers_in_value_and_gradients(compiled):
    run = tf.function(_run, jit_compile=compiled, autograph=False)
    for one, three in zip(run(relu_dot, *_inputs()), _run(_three_layers, *_inputs())):
        np.testing.assert_allclose(one, three, atol=1e-5)  # sums of up to 60 float32 terms in another order


def test_equals_numpy():
    x, bias, weights, upstream = (value.numpy().astype(np.float64) for value in _inputs())
    y, d_x, d_bias, d_weights = _run(relu_dot, *_inputs())
    active = np.maximum(x + bias, 0)
    expected = upstream[..., None] * weights[:, None] * (active > 0)
    np.testing.assert_allclose(y, (active * weights[:, None]).sum(-1), atol=1e-5)
    np.testing.assert_allclose(d_x, expected, atol=1e-6)
    np.testing.assert_allclose(d_bias, expected.sum((0, 1)), atol=1e-5)
    np.testing.assert_allclose(d_weights, (active * upstream[..., None]).sum(1), atol=1e-5)
    assert not np.any(d_x[0, :, 2])


def test_a_gradient_of_the_gradient():
    x, bias, weights, upstream = _inputs()

    def second(operation):
        with tf.GradientTape() as outer:
            outer.watch(weights)
            gradients = _run(operation, x, bias, weights, upstream)[1:]
            total = tf.add_n([tf.reduce_sum(tf.square(gradient)) for gradient in gradients])
        return outer.gradient(total, weights)

    # Squares of sums: up to 400, of which float32 keeps 1e-5.
    np.testing.assert_allclose(second(relu_dot), second(_three_layers), rtol=1e-4, atol=1e-4)


def test_bfloat16_gradients_are_summed_in_float32():
    exact = _run(_three_layers, *[tf.cast(value, tf.float32) for value in _inputs(tf.bfloat16)])
    for rough, right in zip(_run(relu_dot, *_inputs(tf.bfloat16)), exact):
        assert rough.dtype == tf.bfloat16
        # 2**-9 of each factor and of the result; terms up to 6, sums up to 20.
        np.testing.assert_allclose(tf.cast(rough, tf.float32), right, atol=0.15)
