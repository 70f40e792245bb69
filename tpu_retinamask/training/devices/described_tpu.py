"""A TPUStrategy over a TPU that is only described: what a pod would trace, on a machine that has none.

The strategy, its variables and the graphs traced under it are TensorFlow's own; only the answers that a TPU
would give about itself are made here. Variables live on logical CPU devices, one a core, so models can be
built and restored; nothing can be executed.
"""

import math
import re

import numpy as np
import tensorflow as tf

from tpu_retinamask.errors import UserError
from tpu_retinamask.private import tensorflow_names

PREFIX = "fake:"  # of the flag's value, --tpu=fake:2x2


def describe_strategy(topology: str = "2x2") -> tf.distribute.TPUStrategy:
    """Return a TPUStrategy over cores that do not exist.

    Args:
      topology: cores along x and y, "2x2".

    Raises:
      UserError: the topology cannot be read, or TensorFlow has already fixed its devices.
    """
    if not re.fullmatch(r"[1-9][0-9]{0,3}x[1-9][0-9]{0,3}", topology):
        raise UserError(
            f"--tpu={PREFIX}{topology}: got {topology!r}, expected cores along x and y, such as {PREFIX}2x2"
        )
    mesh = [int(side) for side in topology.split("x")]
    cores = math.prod(mesh)
    make_logical_cpus(cores)
    coordinates = [[[x, y, 0, 0] for y in range(mesh[1]) for x in range(mesh[0])]]  # one task, x y z core
    described = tf.tpu.experimental.Topology(
        mesh_shape=[*mesh, 1, 1], device_coordinates=np.array(coordinates, np.int32)
    )
    resolver = tensorflow_names.DescribedResolver(described, _device_names("TPU", cores))
    assignment = tf.tpu.experimental.DeviceAssignment.build(described, num_replicas=cores)
    strategy = tf.distribute.TPUStrategy(resolver, experimental_device_assignment=assignment)
    tensorflow_names.put_variables_on(strategy, _device_names("CPU", cores))
    return strategy


def _device_names(kind: str, count: int) -> list[str]:
    return [f"/job:localhost/replica:0/task:0/device:{kind}:{i}" for i in range(count)]


def make_logical_cpus(count: int) -> None:
    """Divide the CPU into as many devices.

    Raises:
      UserError: TensorFlow has already fixed its devices.
    """
    if tensorflow_names.devices_are_fixed() and len(tf.config.list_logical_devices("CPU")) >= count:
        return
    try:
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * count
        )
    except RuntimeError as error:
        raise UserError(
            f"{count} replicas need as many logical CPU devices, and TensorFlow has already started with "
            "fewer: make the strategy first in a process of its own"
        ) from error
