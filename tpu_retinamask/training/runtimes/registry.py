"""The seat of runtimes, and what the rest of a training asks of one."""

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import tensorflow as tf

from tpu_retinamask.seats import Seat
from tpu_retinamask.structures import Batch, Detections
from tpu_retinamask.training.loop.device_loop import Loop


class Runtime(Protocol):
    """Executes a step on its devices; made by `RUNTIMES.get(name)(tpu=..., replicas=..., cache_dir=...)`.

    Attributes:
      strategy: in whose scope the variables of a training are made.
      replicas: that share each batch.
      on_tpu: whether they are TPU cores, described ones too.
      platform: "cpu", "gpu" or "tpu".
      steps_per_loop: without a return to the host, where the settings do not say.
      described: whether the devices do not exist: the training can be traced, not run.
      processes: that share a run.
      chief: whether this process is the one that writes and evaluates, where there are several.
    """

    strategy: tf.distribute.Strategy
    replicas: int
    on_tpu: bool
    platform: str
    steps_per_loop: int
    described: bool
    processes: int
    chief: bool

    def batches(self, make_dataset: Callable, batch_size: int, start_step: int) -> Iterable[Batch]:
        """Return the batches of a run from a step on, each replica's share on its device."""
        ...

    def step(self, train_step: Callable, *, jit_compile: bool) -> Callable[[Batch], dict]:
        """Return one replica's `train_step` as a function of a global batch: the metrics of all replicas."""
        ...

    def loop(self, step: Callable, batches: Iterable[Batch]) -> Loop:
        """Return what makes so many steps and returns what they gave."""
        ...

    def trace(self, step: Callable, batches: Any) -> tuple[Any, Any]:
        """Return the ConcreteFunction of a step and that of the loop around it, None where that is not in the graph."""
        ...

    def detector(self, detect: Callable, *, jit_compile: bool) -> Callable[[Batch], Detections]:
        """Return `(images, content sizes) -> Detections` as a function of a batch."""
        ...

    def any_process(self, flag: bool) -> bool:
        """Return whether any of the processes that share the run says so; each must ask, and at the same step."""
        ...


RUNTIMES: Seat[Callable[..., Runtime]] = Seat("runtime", "tpu_retinamask.runtimes")
