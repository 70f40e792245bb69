"""The running statistics behind the self-adjusting smooth L1 loss (arXiv 1901.03353 section 3.2)."""

import tensorflow as tf

from tpu_retinamask.ops.losses import self_adjusting_beta, update_running_moments
from tpu_retinamask.training.devices.replicas import update_copies


class BoxStatistics:
    """Running mean and variance of |predicted - target| over positive anchors, one a coordinate.

    They are part of a run's state: a checkpoint must hold them, or a resumed run starts from another loss.
    """

    def __init__(self, largest_beta: float = 0.11, *, smallest_beta: float = 1e-3, momentum: float = 0.1) -> None:
        """Create the variables, in the scope of the strategy that trains.

        Args:
          largest_beta: where the mean starts, so that beta starts there.
          smallest_beta: below which beta never falls.
          momentum: share of each batch in the running values.
        """
        self.largest, self.smallest, self.momentum = largest_beta, smallest_beta, momentum

        def variable(name, value):
            # Equal on all replicas, since the sums that move it are: one copy is enough for a checkpoint.
            return tf.Variable(
                tf.fill([4], value), trainable=False, name=name, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA
            )

        self.mean, self.variance = variable("box_distance_mean", largest_beta), variable("box_distance_variance", 0.0)

    @property
    def variables(self) -> dict:
        """Return what a checkpoint must hold, by name."""
        return {"mean": self.mean, "variance": self.variance}

    def beta_with(self, sums: tf.Tensor) -> tf.Tensor:
        """Return beta [4] as it would be after an update with these sums [3, 4]."""
        return self._beta(*self._moved(sums))

    def update(self, sums: tf.Tensor) -> tf.Tensor:
        """Move the statistics by the sums [3, 4] of a whole batch, all replicas (`ops.losses.distance_moments`).

        Returns:
          The beta [4] that follows.
        """
        moved = self._moved(sums)
        update_copies(lambda variable, value: variable.assign(value), [self.mean, self.variance], moved)
        return self._beta(*moved)

    def _moved(self, sums):
        return update_running_moments(
            tf.convert_to_tensor(self.mean), tf.convert_to_tensor(self.variance), sums, momentum=self.momentum
        )

    def _beta(self, mean, variance):
        return self_adjusting_beta(mean, variance, largest=self.largest, smallest=self.smallest)
