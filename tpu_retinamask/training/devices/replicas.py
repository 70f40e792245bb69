"""What the replicas of a strategy do together: update what all of them share."""

from collections.abc import Callable, Sequence

import tensorflow as tf

from tpu_retinamask.private.tensorflow_names import ReplicasOfOneProgram, merge_call


def meets_by_merge_call() -> bool:
    """Return whether replicas meet on the host, as MirroredStrategy's do, which no function or loop body may."""
    strategy = tf.distribute.get_strategy()
    in_program = isinstance(strategy, tf.distribute.TPUStrategy | ReplicasOfOneProgram)
    return strategy.num_replicas_in_sync > 1 and not in_program


def update_copies(update: Callable, variables: Sequence, *values: Sequence) -> None:
    """Run `update(variable, *its values)` for each variable, on each replica's copy of it.

    The values must be equal on all replicas. Assigning to a variable inside a replica would sum or send them over all
    replicas instead, which is a second exchange of every weight.

    Args:
      update: changes one variable.
      variables: list of tf.Variable.
      *values: lists, one value a variable; tensors or variables.
    """

    def on_each(strategy, variables, *values):
        for variable, *arguments in zip(variables, *values):
            strategy.extended.update(variable, update, args=tuple(arguments), group=False)

    merge_call(on_each, list(variables), *(list(value) for value in values))
