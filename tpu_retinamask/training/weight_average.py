"""An exponential moving average of the weights: what is evaluated, predicted with and exported."""

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf

from tpu_retinamask.errors import UserError
from tpu_retinamask.model.retinamask import RetinaMask
from tpu_retinamask.private.keras_names import all_layers
from tpu_retinamask.training.checkpoints.keys import variable_key
from tpu_retinamask.training.checkpoints.reading import reading, refuse_not_finite
from tpu_retinamask.training.devices.replicas import update_copies


class WeightAverage:
    """Averages whatever a training moves: trainable weights and statistics of normalisation that are not frozen.

    After update t (counted from 0) `average += (1 - d) (weight - average)` with `d = min(decay, (1 + t) / (10 + t))`,
    so that the first weights are soon forgotten; the first update of all takes the weights whole, wherever they were
    loaded from.
    """

    def __init__(self, model: RetinaMask, decay: float = 0.9998) -> None:
        """Create the variables, in the scope of the strategy that trains.

        Args:
          model: RetinaMask with its weights created and its layers frozen.
          decay: share of the old average in the new one.

        Raises:
          UserError: decay is not in (0, 1).
        """
        if not 0.0 < decay < 1.0:
            raise UserError(f"train.average_decay is {decay}, expected a number between 0 and 1, such as 0.9998")
        self.decay = decay
        self._weights = {variable.path: variable.value for variable in moving_variables(model)}
        # The values are equal on all replicas, since the weights are.
        self.variables = {
            path: tf.Variable(
                tf.identity(weight),
                trainable=False,
                name=f"average_{number}",
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            )
            for number, (path, weight) in enumerate(self._weights.items())
        }

    def update(self, updates_done: tf.Tensor) -> None:
        """Take in the weights after an update; `updates_done` is an int scalar, this update included."""
        earlier = tf.cast(updates_done, tf.float32) - 1.0
        decay = tf.minimum(self.decay, (1.0 + earlier) / (10.0 + earlier)) * tf.cast(earlier > 0.0, tf.float32)
        averages, weights = list(self.variables.values()), list(self._weights.values())
        update_copies(
            lambda average, weight, share: average.assign_add(share * (weight - average)),
            averages,
            weights,
            [1.0 - decay] * len(averages),
        )

    def restart(self) -> None:
        """Take the weights as they are for the average."""
        for path, weight in self._weights.items():
            self.variables[path].assign(weight.numpy())

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the averages into the model while the block runs, on the host, then the weights back to the bit."""
        kept = {path: weight.numpy() for path, weight in self._weights.items()}
        for path, weight in self._weights.items():
            weight.assign(self.variables[path].numpy())
        try:
            yield
        finally:
            for path, weight in self._weights.items():
                weight.assign(kept[path])


def load_average(model: RetinaMask, checkpoint: str) -> bool:
    """Put the average in a checkpoint, saved as its part `average`, into a model; return whether it holds one.

    Args:
      model: RetinaMask with its weights created and the rest of the checkpoint restored.
      checkpoint: path of a checkpoint that fits the model.

    Raises:
      UserError: the average cannot be read, or a number of it is not finite.
    """
    keys = {variable.path: variable_key("average", variable.path) for variable in model.variables}
    with reading(checkpoint):
        reader = tf.train.load_checkpoint(checkpoint)
        averages = {path: reader.get_tensor(key) for path, key in keys.items() if reader.has_tensor(key)}
    refuse_not_finite(checkpoint, averages.items())
    for variable in model.variables:
        if variable.path in averages:
            variable.assign(averages[variable.path])
    return bool(averages)


def moving_variables(model: keras.Model) -> list[keras.Variable]:
    """Return the variables of a Keras model that training changes, in the model's order."""
    fixed = {id(variable) for layer in all_layers(model) if not layer.trainable for variable in layer.variables}
    return [variable for variable in model.variables if id(variable) not in fixed]
