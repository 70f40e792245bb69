"""The runtime of TensorFlow itself: one device, mirrored replicas, or a TPU by a TPUStrategy."""

from collections.abc import Callable, Iterable
from typing import Any

import tensorflow as tf

from tpu_retinamask.structures import Batch, Detections
from tpu_retinamask.training.devices import placement
from tpu_retinamask.training.loop.device_loop import StepLoop
from tpu_retinamask.training.runtimes.registry import RUNTIMES
from tpu_retinamask.training.settings import STEPS_PER_LOOP_ON_TPU
from tpu_retinamask.xla.kept_programs import KeptPrograms


@RUNTIMES.register("tensorflow")
class TensorFlowRuntime:
    """Runs a step by tf.function, under the strategy that the devices ask for; see `registry.Runtime`."""

    processes, chief = 1, True  # TensorFlow's strategies are driven by one process

    def __init__(self, *, tpu: str | None = None, replicas: int = 1, cache_dir: str | None = None) -> None:
        """Find the devices. Make it before anything else lets TensorFlow look for them.

        Args:
          tpu: Cloud TPU to train on, "local" on a TPU VM, "fake:2x2" for one that is only described; None: this
            machine's CPU or GPU.
          replicas: GPUs of this machine to share each batch, or shares of its CPU where it has none.
          cache_dir: folder of compiled programs, a CPU's; None: they are not kept.

        Raises:
          UserError: see `placement.make_strategy`.
        """
        self._kept = KeptPrograms(cache_dir) if cache_dir else None
        self.strategy = placement.make_strategy(tpu, replicas)
        self.replicas = self.strategy.num_replicas_in_sync
        self.on_tpu = placement.is_tpu(self.strategy)
        self.platform = "tpu" if self.on_tpu else "gpu" if tf.config.list_physical_devices("GPU") else "cpu"
        self.steps_per_loop = STEPS_PER_LOOP_ON_TPU if self.on_tpu else 1
        self.described = placement.is_described(tpu)

    def batches(self, make_dataset: Callable, batch_size: int, start_step: int) -> Iterable[Batch]:
        """Return the batches of a run; see `placement.distribute_batches`."""
        return placement.distribute_batches(self.strategy, make_dataset, batch_size, start_step)

    def step(self, train_step: Callable, *, jit_compile: bool) -> Callable[[Batch], dict]:
        """Return the step of a global batch; see `placement.distribute_step`."""
        return placement.distribute_step(self.strategy, train_step, jit_compile=jit_compile)

    def loop(self, step: Callable, batches: Iterable[Batch]) -> StepLoop:
        """Return the loop over steps, one of the graph where the batches come from tf.data."""
        return StepLoop(step, batches, compiling=self._kept and self._kept.compiling)

    def trace(self, step: Callable, batches: Any) -> tuple[Any, Any]:
        """Return the ConcreteFunctions of a step and of the loop around it, None where the batches are Python's."""
        traced, loop = (
            tf.function(step, autograph=False).get_concrete_function(batches.element_spec),
            self.loop(step, batches),
        )
        return traced, loop.trace() if loop.in_graph else None

    def detector(self, detect: Callable, *, jit_compile: bool = True) -> Callable[[Batch], Detections]:
        """Return the detector of a batch; see `placement.distribute_detector`."""
        detector = placement.distribute_detector(self.strategy, detect, jit_compile=jit_compile)
        return self._kept.on_first_call(detector) if self._kept else detector

    def any_process(self, flag: bool) -> bool:
        """Return the flag: there is no other process."""
        return flag
