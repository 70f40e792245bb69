"""Run by test_tpu_trace in a process of its own: traces a training under a TPU that is only described, prints JSON."""

import json

import tensorflow as tf

from tpu_retinamask.training.devices import placement

STRATEGY = placement.make_strategy("fake:2x2")

import conftest  # the fixtures' functions, once the devices are set

from tpu_retinamask.model.losses import Criterion
from tpu_retinamask.training.learner import Learner
from tpu_retinamask.training.loop.device_loop import StepLoop
from tpu_retinamask.training.optimizers import make_optimizer
from tpu_retinamask.xla import audit


def dataset(batch_size, start_step, *, replicas, shard):
    """Return endless batches of a replica each."""
    assert (batch_size, start_step, replicas, shard) == (4, 3, 4, (0, 1))
    batch = conftest.make_batch.__wrapped__()(3, 1, 0, 2)
    return tf.data.Dataset.from_tensor_slices(batch).repeat().batch(batch_size // replicas, drop_remainder=True)


def operations(concrete_function):
    """Yield every operation of a function and its library."""
    for _, graph in audit.all_graphs(concrete_function.graph):
        yield from graph.get_operations()


def must_compile(op) -> bool:
    """Tell whether a call is marked by jit_compile=True."""
    return any(name == "_XlaMustCompile" and value.b for name, value in op.node_def.attr.items())


def trace_loop(normalization):
    """Return a learner, and the traced loop of its training."""
    learner = Learner(
        STRATEGY,
        lambda: conftest.small_model.__wrapped__()(normalization=normalization, class_bias=-1.0),
        lambda: make_optimizer(100, weight_decay=0.01),
        lambda: Criterion(mask_rois=12, mask_rois_from_detections=12),
        image_size=(64, 64),
        clip_norm=1.0,
    )
    step = placement.distribute_step(STRATEGY, learner.make_step(), jit_compile=True)
    return learner, StepLoop(step, placement.distribute_batches(STRATEGY, dataset, 4, 3)).trace()


def inside_the_step(loop):
    """Return all operations of the compiled functions of a loop."""
    compiled = {op.get_attr("f").name for op in operations(loop) if must_compile(op)}
    return [op for name, graph in audit.all_graphs(loop.graph) if name in compiled for op in graph.get_operations()]


def assigned_by_core(inside):
    """Return the shape of each value that a variable is given and that a core's own images reach but by a sum."""
    found = []
    for op in inside:
        if not op.type.startswith("Assign"):
            continue
        seen, pending = set(), [op.inputs[1]]
        while pending:
            tensor = pending.pop()
            if tensor.name in seen or tensor.op.type == "CrossReplicaSum":
                continue
            seen.add(tensor.name)
            if tensor.op.type == "Placeholder" and tensor.dtype != tf.resource:  # of the batch
                found.append(op.inputs[1].shape.as_list())
                break
            # A custom gradient hands outputs and inputs through one IdentityN, which mixes nothing.
            mixes = tensor.op.type != "IdentityN"
            pending += tensor.op.inputs if mixes else [tensor.op.inputs[tensor.value_index]]
    return found


learner, loop = trace_loop("frozen")
_, of_batch = trace_loop("batch")
found = list(operations(loop))
inside = inside_the_step(loop)
print(
    json.dumps(
        {
            "replicas": STRATEGY.num_replicas_in_sync,
            "variable_types": sorted(
                {type(v.value).__name__ for v in learner.model.variables + learner.optimizer.variables}
            ),
            "assigned_by_core": {
                "frozen": assigned_by_core(inside),
                "batch": assigned_by_core(inside_the_step(of_batch)),
            },
            "assigned": {
                "frozen": sum(op.type.startswith("Assign") for op in inside),
                "batch": sum(op.type.startswith("Assign") for op in inside_the_step(of_batch)),
            },
            "moving_statistics": sum("moving_" in v.path for v in learner.model.non_trainable_variables),
            "trainable_shapes": sorted(list(v.shape) for v in learner.model.trainable_variables),
            "summed_shapes": sorted(op.outputs[0].shape.as_list() for op in found if op.type == "CrossReplicaSum"),
            "groups": sorted({str(tf.get_static_value(op.inputs[1])) for op in found if op.type == "CrossReplicaSum"}),
            "compiled_calls": sum(map(must_compile, found)),
            "sums_inside": sum(op.type == "CrossReplicaSum" for op in inside),
            "op_types": sorted({op.type for op in found}),
            "forbidden_inside": [reason for op in inside for reason in audit._reasons(op)],
        }
    )
)
