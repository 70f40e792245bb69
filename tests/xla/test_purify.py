"""A pure function does to values what the traced function does to variables."""

import numpy as np
import pytest
import tensorflow as tf

from tpu_retinamask.xla import lower
from tpu_retinamask.xla.purify import pure_function


def states_after(function, variables, *arguments):
    """Run a function both ways; return (outputs, new values) of each."""
    traced = tf.function(function, autograph=False).get_concrete_function(
        *(tf.TensorSpec(np.shape(a), tf.as_dtype(np.asarray(a).dtype)) for a in arguments)
    )
    pure = pure_function(traced)
    assert [spec.shape for spec in pure.state] == [v.shape for v in variables]
    values = tf.function(pure.function, autograph=False)(*map(tf.constant, arguments), *(v.numpy() for v in variables))
    pure_result = [value.numpy() for value in values]
    outputs = tf.nest.flatten(function(*map(tf.constant, arguments)))
    return pure_result, [value.numpy() for value in (*outputs, *variables)], pure


def test_reads_see_the_assignments_before_them():
    a, b = tf.Variable([1.0, 2.0]), tf.Variable(3.0)

    def function(x):
        a.assign_add(x)
        before = a * 2.0
        b.assign(tf.reduce_sum(a))
        a.assign_sub(b * x)
        return before, a + b

    ours, theirs, pure = states_after(function, [a, b], np.float32([0.5, 1.5]))
    for mine, other in zip(ours, theirs):
        np.testing.assert_array_equal(mine, other)
    assert pure.aliases == [(1, 2), (2, 3)]


def test_loops_and_calls_that_use_variables():
    total, steps = tf.Variable(np.float32([1.0, 1.0])), tf.Variable(0)

    @tf.function(autograph=False, jit_compile=True)
    def called(x):
        steps.assign_add(1)
        return x * total

    def function(x):
        def one_round(i, x):
            total.assign_add(called(x))
            return i + 1, x + total

        return tf.while_loop(lambda i, x: i < 3, one_round, (0, x))[1]

    ours, theirs, _ = states_after(function, [steps, total], np.float32([0.25, -1.0]))
    for mine, other in zip(ours, theirs):
        np.testing.assert_allclose(mine, other, rtol=1e-6)  # compiled and not: another order of roundings
    assert theirs[1] == 3


def test_a_branch_that_uses_a_variable_is_refused_by_name():
    flag = tf.Variable(1.0)

    def function(x):
        return tf.cond(x > 0.0, lambda: flag.read_value(), lambda: x)

    pure = pure_function(tf.function(function, autograph=False).get_concrete_function(tf.TensorSpec([])))
    with pytest.raises(ValueError, match="If.*takes a variable"):
        tf.function(pure.function, autograph=False).get_concrete_function(*pure.specs)


def test_refused_operations_are_named_with_their_line():
    def function(x):
        return tf.image.crop_and_resize(x, [[0.0, 0.0, 1.0, 1.0]], [0], [3, 3])  # the line to name

    pure = pure_function(tf.function(function, autograph=False).get_concrete_function(tf.TensorSpec([1, 8, 8, 3])))
    # Without TPU kernels every operation is refused, so the one that a TPU would refuse is among the named.
    with pytest.raises(lower.LoweringError, match=r"(?s)CropAndResize.*test_purify\.py:\d+.*# the line to name"):
        lower.lower_for_tpu(pure)
