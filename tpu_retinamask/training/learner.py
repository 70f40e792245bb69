"""What a step updates, made together in a strategy's scope: for whichever program trains, times or compiles it."""

import tensorflow as tf

from tpu_retinamask.training.box_statistics import BoxStatistics
from tpu_retinamask.training.step import make_train_step, no_probe
from tpu_retinamask.training.weight_average import WeightAverage


class Learner:
    """A network with its optimizer, its criterion, and the state that some options keep beside them.

    Attributes:
      model: RetinaMask with its weights created.
      optimizer: built Keras optimizer.
      criterion: Criterion.
      box_statistics: BoxStatistics, or None where the box loss does not adjust itself.
      average: WeightAverage, or None.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        make_model,
        make_optimizer,
        make_criterion,
        *,
        clip_norm: float | None = None,
        accumulate_steps: int = 1,
        average_decay: float | None = None,
    ) -> None:
        """Create every variable that a training has.

        Args:
          strategy: that trains.
          make_model, make_optimizer, make_criterion: called without arguments in its scope, in this order.
          clip_norm, accumulate_steps: see `make_train_step`.
          average_decay: of the average of the weights; None: no average.
        """
        self._options = {"clip_norm": clip_norm, "accumulate_steps": accumulate_steps}
        with strategy.scope():
            self.model = make_model().create_weights()
            self.optimizer = make_optimizer()
            self.optimizer.build(self.model.trainable_variables)
            self.criterion = make_criterion()
            self.box_statistics = (
                BoxStatistics(self.criterion.smooth_l1_beta) if self.criterion.self_adjusting else None
            )
            self.average = WeightAverage(self.model, average_decay) if average_decay else None

    @property
    def extra_variables(self) -> dict:
        """Return what a checkpoint holds beside weights and optimizer: {part: {name: tf.Variable}}."""
        parts = {"box_statistics": self.box_statistics, "average": self.average}
        return {name: part.variables for name, part in parts.items() if part is not None}

    def make_step(self, probe=no_probe):
        """Return `train_step(batch) -> metrics`, the view of one replica; see `make_train_step`."""
        return make_train_step(
            self.model,
            self.criterion,
            self.optimizer,
            probe=probe,
            box_statistics=self.box_statistics,
            average=self.average,
            **self._options,
        )
