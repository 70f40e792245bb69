"""How a training goes: its length, its batches, its checkpoints and what it shows."""

import dataclasses
from collections.abc import Callable
from typing import Literal

from tpu_retinamask.errors import SettingError
from tpu_retinamask.setting_types import LARGEST_SEED, check_between, check_least, check_types, named

STEPS_PER_LOOP_ON_TPU = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Settings of a training; gin knows them as `train`.

    Attributes:
      batch_size: images a step, of all replicas together.
      images_per_replica: images a step of each replica, in place of `batch_size`, which is then this many times the
        replicas; None: `batch_size` holds.
      epochs: passes over the images.
      steps: updates; overrides epochs.
      reference_batch: images a step that `steps` is given for; a larger batch takes fewer. None: taken as given.
      seed: of the initial weights, the order of the images and their augmentation.
      clip_norm: largest global norm of the gradients; None: not clipped.
      accumulate_steps: parts of the batch whose gradients are summed, to train on more images than fit the memory.
      average_decay: of a moving average of the weights, 0.9998 for one, which is then what is scored, predicted with
        and exported; None: no average.
      jit_compile: compile the step as one XLA program; detection too, where nothing else is said.
      steps_per_loop: steps without a return to Python; None: what the runtime does, 100 on a TPU. A SIGTERM is
        answered by a checkpoint after the loop, so keep a loop shorter than the notice of a preemption (30 s).
      log_every: steps between lines.
      checkpoint_every: steps between checkpoints.
      checkpoint_minutes: longest time between checkpoints, besides; None: steps alone count.
      keep_checkpoints: newest checkpoints kept; the best by mask AP is kept besides.
      evaluate_every: steps between evaluations; None: at the end only.
      stop_after: evaluations without a better mask AP after which the training ends; None: never.
      collapse_after: evaluations in a row with a mask AP of 0, or intervals over which the loss has not fallen, after
        which to warn; None: never.
      stop_collapsed: end the training then.
      weights: "imagenet": where the backbone of a new run starts, if --weights says nothing.
      on_bad_record: as that of `source`, which it overrides; None: that holds.
      transform: Python function that changes each sample before the pipeline does, on the host, so not with a TPU or
        several replicas. See `data.augment.transform` for what goes in and out.
      callbacks: names of what is told of steps, evaluations and checkpoints: 'jsonl' writes steps.jsonl; one's own
        take a seat as docs/extending.md says.

    Raises:
      SettingError: a value of another type, or out of its range; names it.
    """

    batch_size: int = 8
    images_per_replica: int | None = None
    epochs: float = 24.0
    steps: int | None = None
    reference_batch: int | None = None
    seed: int = 0
    clip_norm: float | None = 10.0
    accumulate_steps: int = 1
    average_decay: float | None = None
    jit_compile: bool = True
    steps_per_loop: int | None = None
    log_every: int = 20
    checkpoint_every: int = 500
    checkpoint_minutes: float | None = 5.0
    keep_checkpoints: int = 3
    evaluate_every: int | None = None
    stop_after: int | None = None
    collapse_after: int | None = 5
    stop_collapsed: bool = False
    weights: Literal["imagenet"] | None = None
    on_bad_record: Literal["stop", "skip"] | None = None
    transform: Callable | None = None
    callbacks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_types(self)
        positive = (
            "batch_size",
            "images_per_replica",
            "epochs",
            "steps",
            "reference_batch",
            "accumulate_steps",
            "checkpoint_minutes",
        )
        check_least(named(self, *positive, "steps_per_loop", "log_every", "keep_checkpoints"), 0, above=True)
        check_least(named(self, "checkpoint_every", "evaluate_every", "stop_after", "collapse_after"), 0)
        check_between(named(self, "seed"), 0, LARGEST_SEED)
        shared = self.batch_size if self.images_per_replica is None else self.images_per_replica
        if shared % self.accumulate_steps:
            raise SettingError(
                f"accumulate_steps is {self.accumulate_steps}, expected a divisor of the {shared} images of a step"
            )
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise SettingError(f"clip_norm is {self.clip_norm}, expected more than 0, or None for no clipping")
        if self.average_decay is not None and not 0 <= self.average_decay < 1:
            raise SettingError(f"average_decay is {self.average_decay}, expected a number between 0 and 1, or None")

    def batch_on(self, replicas: int) -> int:
        """Return the images of a step where so many replicas share it."""
        return self.batch_size if self.images_per_replica is None else self.images_per_replica * replicas

    def compiles_detection(self, asked: bool | None = None) -> bool:
        """Return whether detection is compiled: as asked, or else as the step is."""
        return self.jit_compile if asked is None else asked

    def total_steps(self, images: int, batch_size: int, *, step: int = 0, seen: int = 0) -> int:
        """Return the updates of a training over its whole life.

        Args:
          images: of one epoch.
          batch_size: of all replicas, see `batch_on`.
          step: updates made already; no fewer are returned.
          seen: images shown in them. What is left to show is shown by batches of `batch_size`.
        """
        if self.steps and not self.reference_batch:
            return self.steps
        wanted = self.steps * self.reference_batch if self.steps and self.reference_batch else self.epochs * images
        # Of batches that were always of this size, the sum in brackets is `wanted`, to the bit.
        return max(1, step, round((wanted + (step * batch_size - seen)) / batch_size))
