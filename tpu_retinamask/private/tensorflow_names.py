"""Names that TensorFlow keeps private: functions within graphs, operations made anew, TPUs that do not exist."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.compiler.tf2xla.ops import gen_xla_ops
from tensorflow.python.client import session
from tensorflow.python.distribute import one_device_strategy
from tensorflow.python.eager import context
from tensorflow.python.framework import ops
from tensorflow.python.tpu import tpu_system_metadata

from tpu_retinamask.private.checking import require, require_attribute

_KNOWN = {
    "library": "TensorFlow",
    "distributions": ("tensorflow-cpu", "tensorflow", "tensorflow-tpu"),
    "works": "2.20 and 2.21",
}
require(tf.Graph, "_create_op_internal", "_add_function_recursive", **_KNOWN)
require_attribute(tf.Graph, "_functions", **_KNOWN)
require(session, "_DeviceAttributes", **_KNOWN)
require(tpu_system_metadata, "TPUSystemMetadata", **_KNOWN)
require_attribute(context.Context, "_initialized", **_KNOWN)
require(tf.__internal__.distribute.interim, "maybe_merge_call", **_KNOWN)
require(gen_xla_ops, "xla_all_reduce", **_KNOWN)
require(ops, "uid", **_KNOWN)
require(one_device_strategy, "OneDeviceExtended", **_KNOWN)
require(one_device_strategy.OneDeviceExtended, "_num_replicas_in_sync", "_reduce_to", **_KNOWN)


def function_names(graph: tf.Graph) -> list[str]:
    """Name the functions that a graph knows: a body registers with the graph that holds its loop or branch."""
    return list(graph._functions)


def function_graph(name: str, graph: tf.Graph) -> tf.Graph | None:
    """Return the graph of a function that a graph knows, or None where it knows none of the name."""
    function = graph._functions.get(name)
    return None if function is None else function.graph


def count_functions_anew() -> None:
    """Let the next function that is traced have the same name whatever was traced before, some thousands at most.

    Its number is TensorFlow's own count, raised to a round one; its compiled program is known by its name as well.
    """
    tf.function(lambda: tf.zeros([]), autograph=False).get_concrete_function()  # a process's first takes one more
    while ops.uid() % (1 << 18):
        pass


def copy_functions(source: tf.Graph, target: tf.Graph) -> None:
    """Make the functions that one graph knows known to another."""
    for name, function in list(source._functions.items()):
        if name not in target._functions:
            target._add_function_recursive(function)


def create_operation(graph: tf.Graph, like: tf.Operation, inputs: Sequence, attributes: dict) -> tf.Operation:
    """Emit an operation of the type of another into a graph, under its name where that is free."""
    return graph._create_op_internal(
        like.type,
        inputs,
        [out.dtype for out in like.outputs],
        name=like.name.lstrip("_"),
        attrs=attributes,
        op_def=like.op_def,
    )


def variable_spec(handle: Any) -> tf.TensorSpec | None:
    """Return shape and dtype of the variable behind a handle, or None where it tells neither, as packed ones do."""
    data = getattr(handle, "_handle_data", None)
    if data is None or not data.shape_and_type:
        return None
    shape_and_type = data.shape_and_type[0]
    return tf.TensorSpec(tf.TensorShape(shape_and_type.shape), tf.as_dtype(shape_and_type.dtype))


def merge_call(function: Callable, *arguments: Any) -> None:
    """Call `function(strategy, *arguments)` where the replicas meet, or at once where they need not."""
    tf.__internal__.distribute.interim.maybe_merge_call(function, tf.distribute.get_strategy(), *arguments)


def devices_are_fixed() -> bool:
    """Tell whether TensorFlow has started, after which its devices cannot be divided."""
    return context.context()._initialized


class DescribedResolver(tf.distribute.cluster_resolver.TPUClusterResolver):
    """Answers for one TPU host that does not exist, whose cores form a mesh."""

    def __init__(self, topology: tf.tpu.experimental.Topology, device_names: Sequence[str]) -> None:
        """Describe the cores; nothing is connected to."""
        self.topology, self._names = topology, list(device_names)
        self._tpu, self._tpu_topology = "", topology.serialized()

    def get_tpu_system_metadata(self) -> Any:
        """Return what a TPU says of itself."""
        return tpu_system_metadata.TPUSystemMetadata(
            num_cores=len(self._names),
            num_hosts=1,
            num_of_cores_per_host=len(self._names),
            topology=self.topology,
            devices=tuple(session._DeviceAttributes(name, "TPU", 0, 0) for name in self._names),
        )

    def master(self, *args: Any, **kwargs: Any) -> str:
        """Return no address."""
        del args, kwargs
        return ""

    get_master = master
    environment = ""

    def cluster_spec(self) -> None:
        """Return no cluster."""

    def get_job_name(self) -> None:
        """Return no job."""


def put_variables_on(strategy: tf.distribute.TPUStrategy, devices: Sequence[str]) -> None:
    """Have a strategy create its variables on devices that exist, one a core."""
    require(strategy.extended, "_tpu_devices", **_KNOWN)
    strategy.extended._tpu_devices = np.array([[name] for name in devices], dtype=object)


class ReplicasOfOneProgram(tf.distribute.Strategy):
    """One trace and one copy of each variable, on the host, for a program that N replicas will run elsewhere.

    What they sum becomes an all-reduce of the program itself, which no kernel of TensorFlow can run.
    """

    def __init__(self, replicas: int) -> None:
        """Stand for so many replicas."""
        super().__init__(_ReplicasExtended(self, replicas))


class _ReplicasExtended(one_device_strategy.OneDeviceExtended):
    def __init__(self, container: tf.distribute.Strategy, replicas: int) -> None:
        super().__init__(container, "CPU:0")
        self._replicas = replicas

    @property
    def _num_replicas_in_sync(self) -> int:
        return self._replicas

    def _reduce_to(self, reduce_op: Any, value: Any, destinations: Any, options: Any) -> Any:
        del destinations, options
        total = gen_xla_ops.xla_all_reduce(
            input=value, group_assignment=[list(range(self._replicas))], reduce_op="Add", mode="CrossReplica"
        )
        return total if reduce_op == tf.distribute.ReduceOp.SUM else total / self._replicas
