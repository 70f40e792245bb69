"""A traced function of TensorFlow as a program of PJRT, whose variables' values lie on its devices."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tpu_retinamask.xla import lower
from tpu_retinamask.xla.executable import Devices, Executable
from tpu_retinamask.xla.tracing import trace_replica

log = logging.getLogger(__name__)


class DeviceProgram:
    """A function that was traced, made pure, lowered and compiled; the values of its variables stay on the devices.

    Attributes:
      executable: what was compiled.
      output_names: of a function that returns a dict, in the order of the outputs.
    """

    def __init__(
        self,
        function: Callable,
        specs: Sequence[Any],
        devices: Devices,
        strategy: tf.distribute.Strategy,
        *,
        updates: bool,
        cache_dir: str | None,
    ) -> None:
        """Trace and compile.

        Args:
          function: of one replica.
          specs: TensorSpecs of its arguments, shares of one replica.
          devices: that run it.
          strategy: in whose replica context it is traced.
          updates: whether its new variables are kept; else they are read only.
          cache_dir: folder of compiled programs.

        Raises:
          ForbiddenOpError, LoweringError: an operation that has no kernel.
          DeviceMemoryError: it does not fit.
        """
        self._devices, self._updates = devices, updates
        self._structure, pure = trace_replica(function, specs, strategy, devices.platform)
        if not updates:
            whole, count = pure.function, pure.num_outputs
            pure = pure._replace(function=lambda *values: whole(*values)[:count])
        self._variables = list(zip(pure.variables, pure.state))  # handle and TensorSpec of each
        self._num_outputs = pure.num_outputs
        self.executable = Executable(
            lower.lower_on_host(pure), devices, aliases=pure.aliases if updates else (), cache_dir=cache_dir
        )
        log.info(
            "program %s in %.1f s, for %d x %s",
            f"read from {cache_dir}" if self.executable.from_disk else "compiled",
            self.executable.seconds,
            devices.replicas,
            devices.devices[0].device_kind,
        )
        self._state = None

    def __call__(self, arguments: Sequence[Any]) -> Any:
        """Start the program on arguments that lie on the devices.

        Returns:
          The structure that the function returned; in the place of each tensor the list of what each local device
          holds, which need not be there yet.
        """
        if self._state is None:
            self.load()
        outputs = self.executable([*arguments, *self._state])
        if self._updates:
            new = outputs[self._num_outputs :]
            single = self._devices.replicas == 1
            self._state = [parts[0] if single else self._devices.joined(parts) for parts in new]
        return tf.nest.pack_sequence_as(self._structure, outputs[: self._num_outputs])

    @property
    def state_bytes(self) -> int:
        """Return the bytes of all variables on one device."""
        return sum(spec.shape.num_elements() * spec.dtype.size for _, spec in self._variables)

    def copies(self) -> list[list[np.ndarray]]:
        """Return the copies of each variable that the local devices hold."""
        return [[np.asarray(shard.data) for shard in value.addressable_shards] for value in self._state or ()]

    def load(self) -> None:
        """Take the values that the variables have on the host."""
        self._state = [
            self._devices.copy(tf.raw_ops.ReadVariableOp(resource=handle, dtype=spec.dtype).numpy())
            for handle, spec in self._variables
        ]

    def store(self) -> None:
        """Give the variables on the host the values that they have on the devices."""
        for (handle, spec), value in zip(self._variables, self._state or ()):
            new = tf.constant(np.asarray(value.addressable_data(0)), spec.dtype)
            tf.raw_ops.AssignVariableOp(resource=handle, value=new)
