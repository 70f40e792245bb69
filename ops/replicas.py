"""Sums over the replicas that share a batch."""

from typing import Any

import tensorflow as tf


def sum_over_replicas(value: Any) -> Any:
    """Return the sum over all replicas of a tensor, or of each in a list or dict; itself where there is one."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)
