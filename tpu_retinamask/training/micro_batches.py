"""A batch taken in parts, so that the activations of one part at a time fill the memory."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tpu_retinamask.errors import UserError
from tpu_retinamask.structures import Batch
from tpu_retinamask.training.devices.replicas import meets_by_merge_call


def micro_batch(batch: Batch, index: tf.Tensor, parts: int) -> Batch:
    """Return the images index, index + parts, index + 2 parts, ... of a batch.

    Replicas hold successive images of the global batch. Taken at this stride, part number i holds the same images
    however many replicas share them.

    Args:
      batch: Batch of B images.
      index: int32 scalar, below `parts`.
      parts: a divisor of B.

    Returns:
      Batch of B / parts images.

    Raises:
      UserError: the batch does not divide.
    """
    images = batch.image.shape[0]
    if images % parts:
        raise UserError(
            f"{images} images of a replica cannot be divided into train.accumulate_steps = {parts} equal "
            "parts: choose train.batch_size as a multiple of replicas * accumulate_steps"
        )
    return Batch(
        *[tf.gather(tf.reshape(value, [images // parts, parts, *value.shape[1:]]), index, axis=1) for value in batch]
    )


def repeat(times: int, body: Callable, state: Any) -> Any:
    """Return the state after `state = body(index, state)` for each index below `times`.

    It is a loop of the graph: the body is compiled once, and no two of its runs are in memory together. Replicas that
    meet on the host cannot do so within a loop: there the body is written out `times` times.

    Args:
      times: number of runs.
      body: (int32 scalar, state) to a state of the same structure and shapes. A gradient taken inside is no matter;
        none is taken through the loop.
      state: nested structure of tensors.
    """
    if meets_by_merge_call():
        for index in range(times):
            state = body(tf.constant(index), state)
        return state
    _, state = tf.while_loop(
        lambda index, state: index < times,
        lambda index, state: (index + 1, body(index, state)),
        (tf.constant(0), state),
        parallel_iterations=1,
        maximum_iterations=times,
    )
    return state
