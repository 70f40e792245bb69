"""Run by test_step_replicas in a process of its own, because a process is divided into devices before it starts.

Prints JSON by normalisation: the losses and the largest differences of one device on the whole batch and two replicas
on an image each.
"""

import json
import sys

import numpy as np
import tensorflow as tf

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)

import conftest  # noqa: E402  # the fixtures' functions, once the devices are set

from tpu_retinamask.model.losses import Criterion  # noqa: E402
from tpu_retinamask.structures import Batch  # noqa: E402
from tpu_retinamask.training.step import compile_step, make_train_step  # noqa: E402

STEPS = 2


def build(normalization):
    """Return model, optimizer and step; the gradients are far above the clip, so that each share of them is too."""
    model = conftest.small_model.__wrapped__()(normalization=normalization, class_bias=-1.0)
    optimizer = conftest.built_optimizer.__wrapped__()(model, learning_rate=0.01, weight_decay=0.01)
    criterion = Criterion(mask_rois=12, mask_rois_from_detections=12)
    return model, optimizer, make_train_step(model, criterion, optimizer, clip_norm=0.5)


def compare(normalization):
    """Return the comparison for one normalisation."""
    batch = conftest.make_batch.__wrapped__()(6, 1)  # unequal images: a mean of means would differ
    model, optimizer, step = build(normalization)
    step = compile_step(step, jit_compile=False)
    whole = [{name: float(value) for name, value in step(batch).items()} for _ in range(STEPS)]

    strategy = tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice())
    with strategy.scope():
        mirrored_model, mirrored_optimizer, replica_step = build(normalization)

    def image_of(context):
        index = context.replica_id_in_sync_group
        return Batch(*[part[index:index + 1] for part in batch])

    shared = strategy.experimental_distribute_values_from_function(image_of)

    @tf.function(autograph=False)
    def run(values):
        return strategy.run(replica_step, args=(values,))

    per_replica = []
    for _ in range(STEPS):
        metrics = run(shared)
        per_replica.append([{name: float(strategy.experimental_local_results(value)[index])
                             for name, value in metrics.items()} for index in range(2)])
    differences, spread, compared = {}, {}, 0
    for one, two in zip(model.variables + optimizer.variables, mirrored_model.variables + mirrored_optimizer.variables):
        expected = one.numpy()
        copies = [copy.numpy() for copy in strategy.experimental_local_results(two.value)]
        compared += len(copies)
        scale = max(1e-6, float(np.abs(expected).max()))
        differences[two.path] = max(float(np.abs(copy - expected).max()) for copy in copies) / scale
        spread[two.path] = float(np.abs(copies[0].astype(np.float64) - copies[1]).max())
    return {"whole": whole, "per_replica": per_replica, "differences": differences, "spread": spread,
            "compared": compared}


if __name__ == "__main__":
    print(json.dumps({name: compare(name) for name in sys.argv[1:]}))
