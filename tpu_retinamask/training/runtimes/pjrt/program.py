"""A traced function of TensorFlow as a program of PJRT, whose variables' values lie on its devices."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import tensorflow as tf

from tpu_retinamask.xla import audit, lower, purify
from tpu_retinamask.xla.executable import Devices, Executable
from tpu_retinamask.xla.tracing import trace_replica

log = logging.getLogger(__name__)


class DeviceProgram:
    """A function that was traced, made pure, lowered and compiled; the values of its variables stay on the devices.

    Attributes:
      executable: what was compiled.
      state: the variables' values on the devices; empty before `load`, which the first call does.
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
        traced = trace_replica(function, specs, strategy, devices.platform)
        audit.check(traced)
        self._structure, pure = traced.structured_outputs, purify.pure_function(traced)
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
        self.state: list[jax.Array] = []

    def __call__(self, arguments: Sequence[Any]) -> Any:
        """Start the program on arguments that lie on the devices.

        Returns:
          The structure that the function returned; in the place of each tensor the list of what each local device
          holds, which need not be there yet.
        """
        if not self.state:
            self.load()
        outputs = self.executable([*arguments, *self.state])
        if self._updates:
            new = outputs[self._num_outputs :]
            single = self._devices.replicas == 1
            self.state = [parts[0] if single else self._devices.joined(parts) for parts in new]
        return tf.nest.pack_sequence_as(self._structure, outputs[: self._num_outputs])

    def load(self) -> None:
        """Take the values that the variables have on the host."""
        self.state = [
            self._devices.copy(tf.raw_ops.ReadVariableOp(resource=handle, dtype=spec.dtype).numpy())
            for handle, spec in self._variables
        ]

    def take(self, other: "DeviceProgram") -> None:
        """Take the values on the devices from a program of the same variables, which has none then.

        Raises:
          KeyError: a variable that the other has not.
        """
        held = {id(handle): value for (handle, _), value in zip(other._variables, other.state)}
        self.state, other.state = [held[id(handle)] for handle, _ in self._variables], []

    def store(self) -> None:
        """Give the variables on the host the values that they have on the devices."""
        for (handle, spec), value in zip(self._variables, self.state):
            new = tf.constant(np.asarray(value.addressable_data(0)), spec.dtype)
            tf.raw_ops.AssignVariableOp(resource=handle, value=new)
