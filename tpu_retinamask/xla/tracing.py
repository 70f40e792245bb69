"""A step traced for replicas of one program: what they sum is an all-reduce of the program itself."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from tpu_retinamask.traced_for import tracing_for


def trace_replica(function: Callable, specs: Sequence[Any], strategy: tf.distribute.Strategy, platform: str) -> Any:
    """Return the ConcreteFunction of what one replica does.

    Args:
      function: of one replica.
      specs: TensorSpecs, or structures of them, of its arguments.
      strategy: in whose replica context it is traced: of one device, or `ReplicasOfOneProgram`.
      platform: that the program is for; one of `traced_for.PLATFORMS`.
    """

    def of_replica(*arguments):
        with tracing_for(platform):
            return strategy.run(function, args=arguments)

    return tf.function(of_replica, autograph=False).get_concrete_function(*specs)
