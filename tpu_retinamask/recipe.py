"""A recipe: all that says what is trained and how, in one value; where its data and results lie is no part of it."""

import dataclasses

import tensorflow as tf

from tpu_retinamask.data.sources.settings import SourceSettings
from tpu_retinamask.data.stream.pipeline import InputPipeline
from tpu_retinamask.model.losses import Criterion
from tpu_retinamask.model.postprocess import DetectionFilter
from tpu_retinamask.model.retinamask import RetinaMask
from tpu_retinamask.model.settings import NetworkSettings
from tpu_retinamask.setting_types import check_types
from tpu_retinamask.training.learner import Learner
from tpu_retinamask.training.optimizers import OptimizerSettings
from tpu_retinamask.training.settings import TrainSettings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """The settings of each part.

    Attributes:
      network: of `RetinaMask`.
      criterion: targets and losses.
      detection_filter: how detections are chosen, in evaluations too.
      source: how annotated images are read.
      pipeline: how images become batches; its seed is that of `train`.
      optimizer: the optimizer and its schedule.
      train: length, batches, checkpoints.
    """

    network: NetworkSettings = NetworkSettings()
    criterion: Criterion = Criterion()
    detection_filter: DetectionFilter = DetectionFilter()
    source: SourceSettings = SourceSettings()
    pipeline: InputPipeline = InputPipeline()
    optimizer: OptimizerSettings = OptimizerSettings()
    train: TrainSettings = TrainSettings()

    def __post_init__(self) -> None:
        check_types(self)
        if self.pipeline.seed != self.train.seed:
            object.__setattr__(self, "pipeline", dataclasses.replace(self.pipeline, seed=self.train.seed))

    def make_learner(
        self,
        strategy: tf.distribute.Strategy,
        num_classes: int,
        *,
        total_steps: int,
        batch_size: int,
        image_size: tuple[int, int] | None = None,
    ) -> Learner:
        """Create the network with its optimizer, its criterion and what is kept beside them.

        Args:
          strategy: in whose scope the variables are made.
          num_classes: C.
          total_steps: of the schedule.
          batch_size: images a step, of all replicas.
          image_size: (H, W) of the canvas; None: that of the pipeline, of several the largest.
        """
        return Learner(
            strategy,
            lambda: RetinaMask(num_classes, self.network),
            lambda: self.optimizer.build(total_steps, batch_size),
            lambda: self.criterion,
            image_size=image_size or self.pipeline.largest_canvas,
            clip_norm=self.train.clip_norm,
            accumulate_steps=self.train.accumulate_steps,
            average_decay=self.train.average_decay,
        )
