"""Element-wise choice between two tensors."""

import tensorflow as tf


def select(condition: tf.Tensor, when_true: tf.Tensor | float, when_false: tf.Tensor | float) -> tf.Tensor:
    """Choose element-wise between two tensors that broadcast against the condition.

    Emits SelectV2, which every XLA backend compiles. The project never calls the library function
    of the same purpose, because its one-argument form returns a dynamic shape and a
    reader cannot tell the two apart at a glance.

    Args:
      condition: bool tensor.
      when_true: tensor or Python number, broadcast against `condition`.
      when_false: the same, of the same dtype.

    Returns:
      A tensor of the broadcast shape. Both branches are evaluated: a value that is not finite in the
      branch not taken still poisons the gradient, so make the operands safe first.
    """
    when_true, when_false = _same_dtype(when_true, when_false)
    return tf.raw_ops.SelectV2(condition=condition, t=when_true, e=when_false)


def _same_dtype(a, b):
    if tf.is_tensor(a):
        return a, tf.convert_to_tensor(b, a.dtype)
    b = tf.convert_to_tensor(b)
    return tf.convert_to_tensor(a, b.dtype), b
