"""Run by test_tpu_trace in a process of its own: traces a training under a TPU that is only described, prints JSON."""

import json

import tensorflow as tf

from tpu_retinamask.training import devices

STRATEGY = devices.make_strategy("fake:2x2")

import conftest  # noqa: E402  # the fixtures' functions, once the devices are set

from tpu_retinamask.model.losses import Criterion  # noqa: E402
from tpu_retinamask.training.step import make_train_step  # noqa: E402
from tpu_retinamask.training.step_loop import StepLoop  # noqa: E402
from tpu_retinamask.xla import audit  # noqa: E402


def dataset(batch_size, start_step, *, replicas, shard):
    """Return endless batches of a replica each."""
    assert (batch_size, start_step, replicas, shard) == (4, 3, 4, (0, 1))
    batch = conftest.make_batch.__wrapped__()(3, 1, 0, 2)
    return tf.data.Dataset.from_tensor_slices(batch).repeat().batch(batch_size // replicas, drop_remainder=True)


def operations(concrete_function):
    """Yield every operation of a function and its library."""
    for _, graph in audit._all_graphs(concrete_function.graph):
        yield from graph.get_operations()


def must_compile(op) -> bool:
    """Tell whether a call is marked by jit_compile=True."""
    return any(name == "_XlaMustCompile" and value.b for name, value in op.node_def.attr.items())


with STRATEGY.scope():
    model = conftest.small_model.__wrapped__()(normalization="frozen", class_bias=-1.0)
    optimizer = conftest.built_optimizer.__wrapped__()(model, weight_decay=0.01)
replica_step = make_train_step(model, Criterion(mask_rois=12, mask_rois_from_detections=12), optimizer, clip_norm=1.0)
step = devices.distribute_step(STRATEGY, replica_step, jit_compile=True)
loop = StepLoop(step, devices.distribute_batches(STRATEGY, dataset, 4, 3)).trace()
found = list(operations(loop))
calls = [op for op in found if must_compile(op)]
compiled = {op.get_attr("f").name for op in calls}
inside = [op for name, graph in audit._all_graphs(loop.graph) if name in compiled for op in graph.get_operations()]
print(json.dumps({
    "replicas": STRATEGY.num_replicas_in_sync,
    "variable_types": sorted({type(v.value).__name__ for v in model.variables + optimizer.variables}),
    "aggregated_on_read": [v.path for v in model.variables + optimizer.variables
                           if "ON_READ" in str(v.value.synchronization)],
    "trainable_shapes": sorted(list(v.shape) for v in model.trainable_variables),
    "summed_shapes": sorted(op.outputs[0].shape.as_list() for op in found if op.type == "CrossReplicaSum"),
    "groups": sorted({str(tf.get_static_value(op.inputs[1])) for op in found if op.type == "CrossReplicaSum"}),
    "compiled_calls": len(calls),
    "sums_inside": sum(op.type == "CrossReplicaSum" for op in inside),
    "op_types": sorted({op.type for op in found}),
    "forbidden_inside": [reason for op in inside for reason in audit._reasons(op)],
}))
