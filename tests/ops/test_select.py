"""The element-wise choice keeps dtypes and broadcasts."""

import numpy as np
import tensorflow as tf

from tpu_retinamask.ops.select import select


def test_chooses_and_broadcasts():
    condition = tf.constant([[True], [False]])
    np.testing.assert_array_equal(select(condition, tf.constant([1, 2]), -1), [[1, 2], [-1, -1]])
    np.testing.assert_array_equal(select(condition, -1, tf.constant([1, 2])), [[-1, -1], [1, 2]])
    np.testing.assert_array_equal(select(condition, 1.5, 2.5), [[1.5], [2.5]])


def test_a_number_takes_the_type_of_the_tensor():
    condition = tf.constant([True, False])
    for dtype in (tf.bfloat16, tf.int64, tf.float32):
        chosen = select(condition, tf.constant([3, 4], dtype), 0)
        assert chosen.dtype == dtype
        np.testing.assert_array_equal(tf.cast(chosen, tf.float32), [3, 0])


def test_gradient_flows_through_the_chosen_branch_only():
    a, b = tf.Variable([1.0, 2.0]), tf.Variable([3.0, 4.0])
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(select(tf.constant([True, False]), a * 10, b * 100))
    grad_a, grad_b = tape.gradient(total, [a, b])
    np.testing.assert_array_equal(grad_a, [10, 0])
    np.testing.assert_array_equal(grad_b, [0, 100])


def test_compiled_equals_eager():
    condition, x = tf.constant([True, False, True]), tf.constant([1.0, 2.0, 3.0])
    compiled = tf.function(lambda c, v: select(c, v, -1.0), jit_compile=True)(condition, x)
    np.testing.assert_array_equal(compiled, [1, -1, 3])
