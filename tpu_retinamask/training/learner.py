"""What a step updates, made together in a strategy's scope: for whichever program trains, times or compiles it."""

from collections.abc import Callable

import keras
import tensorflow as tf

from tpu_retinamask.model.losses import Criterion
from tpu_retinamask.model.retinamask import RetinaMask
from tpu_retinamask.structures import Batch
from tpu_retinamask.training.box_statistics import BoxStatistics
from tpu_retinamask.training.step import Probe, make_train_step, no_probe
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
        make_model: Callable[[], RetinaMask],
        make_optimizer: Callable[[], keras.Optimizer],
        make_criterion: Callable[[], Criterion],
        *,
        image_size: tuple[int, int],
        clip_norm: float | None = None,
        accumulate_steps: int = 1,
        average_decay: float | None = None,
    ) -> None:
        """Create every variable that a training has.

        Args:
          strategy: that trains.
          make_model, make_optimizer, make_criterion: called without arguments in its scope, in this order.
          image_size: (H, W) of the canvas.
          clip_norm, accumulate_steps: see `make_train_step`.
          average_decay: of the average of the weights; None: no average.
        """
        self._options = {"clip_norm": clip_norm, "accumulate_steps": accumulate_steps}
        with strategy.scope():
            self.model = make_model().create_weights(image_size)
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

    def make_step(self, probe: Probe = no_probe) -> Callable[[Batch], dict[str, tf.Tensor]]:
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
