"""Run by test_step_replicas in a process of its own, because a process is divided into devices before it starts.

Prints JSON by normalisation: the losses and the largest differences of one device on the whole batch and two replicas
on an image each, both through the loop of a training.
"""

import functools
import json
import sys

import numpy as np
import tensorflow as tf

from tpu_retinamask.training import devices

TWO = devices.make_strategy(replicas=2)

import conftest  # noqa: E402  # the fixtures' functions, once the devices are set

from tpu_retinamask.model.losses import Criterion  # noqa: E402
from tpu_retinamask.training.step import make_train_step  # noqa: E402
from tpu_retinamask.training.step_loop import StepLoop  # noqa: E402

STEPS = 2


def build(normalization):
    """Return model, optimizer and step; the gradients are far above the clip, so that each share of them is too."""
    model = conftest.small_model.__wrapped__()(normalization=normalization, class_bias=-1.0)
    optimizer = conftest.built_optimizer.__wrapped__()(model, learning_rate=0.01, weight_decay=0.01)
    criterion = Criterion(mask_rois=12, mask_rois_from_detections=12)
    return model, optimizer, make_train_step(model, criterion, optimizer, clip_norm=0.5)


def dataset(batch, batch_size, start_step, *, replicas=1, shard=(0, 1)):
    """Return the batch again and again, as `InputPipeline.train_dataset` would."""
    assert (start_step, shard) == (0, (0, 1))
    return tf.data.Dataset.from_tensor_slices(batch).repeat().batch(batch_size // replicas, drop_remainder=True)


def train(strategy, batch, normalization):
    """Return the model, the optimizer and the metrics of STEPS steps."""
    with strategy.scope():
        model, optimizer, replica_step = build(normalization)
    step = devices.distribute_step(strategy, replica_step, jit_compile=False)
    batches = devices.distribute_batches(strategy, functools.partial(dataset, batch), 2, 0)
    metrics = StepLoop(step, batches)(STEPS).metrics
    return model, optimizer, [{name: float(values[i]) for name, values in metrics.items()} for i in range(STEPS)]


def compare(normalization):
    """Return the comparison for one normalisation."""
    batch = conftest.make_batch.__wrapped__()(6, 1)  # unequal images: a mean of means would differ
    model, optimizer, whole = train(devices.make_strategy(), batch, normalization)
    mirrored_model, mirrored_optimizer, shared = train(TWO, batch, normalization)
    differences, spread, compared = {}, {}, 0
    for one, two in zip(model.variables + optimizer.variables, mirrored_model.variables + mirrored_optimizer.variables):
        expected = one.numpy()
        copies = [copy.numpy() for copy in TWO.experimental_local_results(two.value)]
        compared += len(copies)
        scale = max(1e-6, float(np.abs(expected).max()))
        differences[two.path] = max(float(np.abs(copy - expected).max()) for copy in copies) / scale
        spread[two.path] = float(np.abs(copies[0].astype(np.float64) - copies[1]).max())
    return {"whole": whole, "shared": shared, "differences": differences, "spread": spread,
            "compared": compared}


if __name__ == "__main__":
    print(json.dumps({name: compare(name) for name in sys.argv[1:]}))
