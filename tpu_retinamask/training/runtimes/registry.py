"""The seat of runtimes, and what the rest of a training asks of one."""

from collections.abc import Callable, Iterable
from typing import Protocol

import tensorflow as tf

from tpu_retinamask.seats import Seat
from tpu_retinamask.structures import Batch, Detections
from tpu_retinamask.training.loop.device_loop import LoopResult


class Runtime(Protocol):
    """Executes a step on its devices; made by `RUNTIMES.get(name)(tpu=..., replicas=...)`.

    Attributes:
      strategy: in whose scope the variables of a training are made.
      replicas: that share each batch.
      on_tpu: whether they are TPU cores, described ones too.
      described: whether the devices do not exist: the training can be traced, not run.
    """

    strategy: tf.distribute.Strategy
    replicas: int
    on_tpu: bool
    described: bool

    def batches(self, make_dataset: Callable, batch_size: int, start_step: int) -> Iterable[Batch]:
        """Return the batches of a run from a step on, each replica's share on its device."""
        ...

    def step(self, train_step: Callable, *, jit_compile: bool) -> Callable[[Batch], dict]:
        """Return one replica's `train_step` as a function of a global batch: the metrics of all replicas."""
        ...

    def loop(self, step: Callable, batches: Iterable[Batch]) -> Callable[[int], LoopResult]:
        """Return a function that makes so many steps and returns what they gave; it raises BatchError for its input."""
        ...

    def detector(self, detect: Callable, *, jit_compile: bool) -> Callable[[Batch], Detections]:
        """Return `(images, content sizes) -> Detections` as a function of a batch."""
        ...


RUNTIMES: Seat[Callable[..., Runtime]] = Seat("runtime", "tpu_retinamask.runtimes")
