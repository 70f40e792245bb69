"""The runtime of PJRT: GPUs, TPUs and CPUs that have a plugin; TensorFlow traces and lowers, and runs nothing."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from tpu_retinamask.errors import UserError
from tpu_retinamask.private.tensorflow_names import ReplicasOfOneProgram
from tpu_retinamask.structures import Batch, Detections
from tpu_retinamask.training.devices import placement
from tpu_retinamask.training.runtimes.registry import RUNTIMES
from tpu_retinamask.training.settings import STEPS_PER_LOOP_ON_TPU
from tpu_retinamask.xla.tracing import trace_replica


@RUNTIMES.register("pjrt")
class PjrtRuntime:
    """Runs a step as one compiled program of N replicas; see `registry.Runtime`."""

    described = False

    def __init__(self, *, tpu: str | None = None, replicas: int = 1, cache_dir: str | None = None) -> None:
        """Find the devices; see `pjrt.finding.find_devices`.

        Args:
          tpu: must be None: PJRT finds the TPU of its own machine.
          replicas: that share each batch; on a TPU all cores do.
          cache_dir: folder of compiled programs.

        Raises:
          UserError: jax is not installed, or no device answers.
        """
        if tpu is not None:
            raise UserError(f"--tpu={tpu} with --runtime=pjrt: it finds the TPU of its own machine; leave --tpu out")
        try:
            import jax
        except ImportError as error:
            raise UserError(
                f"--runtime=pjrt needs jax ({error}): pip install 'tpu-retinamask[pjrt]' for a CPU, [pjrt-cuda12] or "
                "[pjrt-cuda13] for a GPU, [pjrt-tpu] for a TPU"
            ) from error
        from tpu_retinamask.training.runtimes.pjrt import finding

        self._devices = finding.find_devices(replicas)
        self._cache_dir = cache_dir
        self.replicas = self._devices.replicas
        self.processes, self.chief = jax.process_count(), jax.process_index() == 0
        self.on_tpu = self._devices.platform == "tpu"
        self.platform = self._devices.platform if self._devices.platform in ("cpu", "tpu") else "gpu"
        self.steps_per_loop = 1 if self._devices.platform == "cpu" else STEPS_PER_LOOP_ON_TPU
        self.strategy = ReplicasOfOneProgram(self.replicas) if self.replicas > 1 else tf.distribute.get_strategy()
        self._settled = 0  # times that the variables on the host were given new values

    def batches(self, make_dataset: Callable, batch_size: int, start_step: int) -> Iterable[Batch]:
        """Return this process' share of the batches of a run."""
        import jax

        placement.replica_batch_size(self.strategy, batch_size)
        # A process' replicas are neighbours: their shares are one range of the batch.
        return make_dataset(
            batch_size, start_step, replicas=self.processes, shard=(jax.process_index(), self.processes)
        )

    def step(self, train_step: Callable, *, jit_compile: bool) -> Callable[[Batch], dict]:
        """Return the step; it is compiled whatever `jit_compile` says."""
        del jit_compile
        return PjrtStep(self, train_step)

    def loop(self, step: Any, batches: Iterable[Batch]) -> Any:
        """Return the loop over steps."""
        from tpu_retinamask.training.runtimes.pjrt.loop import DeviceLoop

        return DeviceLoop(step, batches, self._devices, self._note_settled)

    def trace(self, step: Any, batches: Any) -> tuple[Any, Any]:
        """Return the ConcreteFunction of one replica's step; the loop around it is Python's."""
        shares = self._shares(batches.element_spec, self._devices)
        return trace_replica(step.of_fields, shares, self.strategy, self._devices.platform), None

    def detector(self, detect: Callable, *, jit_compile: bool = True) -> Callable[[Batch], Detections]:
        """Return the detector of a batch, whose weights are those at its first call, and at each since a `settle`.

        As many of this process' devices share a batch as divide it.
        """
        from tpu_retinamask.xla.executable import Devices

        del jit_compile
        programs, loaded = {}, {}

        def run(batch: Batch) -> Detections:
            fields = [np.asarray(batch.image), np.asarray(batch.content_size)]
            key = fields[0].shape
            local = self._devices.local
            devices = Devices(local[: math.gcd(key[0], len(local))])
            if key not in programs:
                programs[key] = self.program(detect, fields, devices, updates=False)
            if loaded.get(key) != self._settled:
                programs[key].load()
                loaded[key] = self._settled
            found = programs[key]([devices.share(field) for field in fields])
            return Detections(
                *(tf.constant(np.concatenate([np.asarray(share) for share in shares])) for shares in found)
            )

        return run

    def any_process(self, flag: bool) -> bool:
        """Return whether any of the processes says so; each must ask."""
        if self.processes == 1:
            return flag
        from jax.experimental import multihost_utils

        return bool(np.any(multihost_utils.process_allgather(np.array(flag))))

    def program(self, function: Callable, fields: Iterable, devices: Any = None, *, updates: bool) -> Any:
        """Return a function as a `DeviceProgram`.

        Args:
          function: of one replica; takes its shares of the fields.
          fields: with the shapes of all devices together.
          devices: that share them; None: those of the training.
          updates: whether it changes variables.
        """
        from tpu_retinamask.training.runtimes.pjrt.program import DeviceProgram

        devices = devices or self._devices
        return DeviceProgram(
            function,
            self._shares(fields, devices),
            devices,
            self.strategy,
            updates=updates,
            cache_dir=self._cache_dir,
        )

    def _shares(self, fields: Iterable, devices: Any) -> list[tf.TensorSpec]:
        """Return the TensorSpecs of one replica's share of fields, or of the specs of some."""
        return [
            tf.TensorSpec([field.shape[0] // devices.replicas, *field.shape[1:]], tf.as_dtype(field.dtype))
            for field in fields
        ]

    def _note_settled(self) -> None:
        self._settled += 1


class PjrtStep:
    """A training step on the devices; called with a batch's fields that lie there."""

    def __init__(self, runtime: Any, train_step: Callable) -> None:
        """Take the step of one replica; it is compiled by the first call, and by the first on another canvas."""
        self._runtime, self._train_step, self.program = runtime, train_step, None
        self._programs = {}

    def __call__(self, fields: Any) -> dict:
        """Make one step; return {metric: list of what each local device holds}, which need not be there yet."""
        shapes = tuple(field.shape for field in fields)
        program = self._programs.get(shapes)
        if program is None:
            program = self._programs[shapes] = self._runtime.program(self.of_fields, fields, updates=True)
        if self.program is not None and program is not self.program:
            program.take(self.program)
        self.program = program
        return program(fields)

    def of_fields(self, *fields: tf.Tensor) -> dict:
        """Make one replica's step in TensorFlow's graph, of the fields of its share."""
        return self._train_step(Batch(*fields))

    def store(self) -> None:
        """Give the variables on the host the values that they have on the devices."""
        if self.program is not None:
            self.program.store()
