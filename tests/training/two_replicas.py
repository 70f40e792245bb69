"""Run by test_step_replicas in a process of its own, because a process is divided into devices before it starts.

Prints JSON: the losses and the largest differences of one device on the whole batch and two replicas on an image each,
both through the loop of a training, for the normalisation that it is told.
"""

import functools
import json
import sys

import numpy as np
import tensorflow as tf

from tpu_retinamask.training.devices import placement

TWO = placement.make_strategy(replicas=2)

import conftest  # the fixtures' functions, once the devices are set

from tpu_retinamask.model.losses import Criterion
from tpu_retinamask.model.postprocess import DetectionFilter, detect
from tpu_retinamask.training.box_statistics import BoxStatistics
from tpu_retinamask.training.loop.device_loop import StepLoop
from tpu_retinamask.training.step import make_train_step
from tpu_retinamask.training.weight_average import WeightAverage

STEPS = 2


def build(normalization):
    """Return the model, its step and {name: variable} of everything that a checkpoint would hold.

    The gradients are far above the clip, so that each share of them is too.
    """
    model = conftest.small_model.__wrapped__()(normalization=normalization, class_bias=-1.0)
    optimizer = conftest.built_optimizer.__wrapped__()(model, learning_rate=0.01, weight_decay=0.01)
    # So large that beta follows the distances of a network that has learnt nothing.
    statistics, average = BoxStatistics(2.0), WeightAverage(model, 0.15)
    criterion = Criterion(mask_rois=12, mask_rois_from_detections=12)
    step = make_train_step(model, criterion, optimizer, clip_norm=0.5, box_statistics=statistics, average=average)
    # Without the first part of a path: Keras numbers the models of a process.
    variables = {variable.path.split("/", 1)[1]: variable.value for variable in model.variables + optimizer.variables}
    variables |= {f"box {name}": variable for name, variable in statistics.variables.items()}
    return model, step, variables | {f"average {path}": variable for path, variable in average.variables.items()}


def dataset(batch, batch_size, start_step, *, replicas=1, shard=(0, 1)):
    """Return the batch again and again, as `InputPipeline.train_dataset` would."""
    assert (start_step, shard) == (0, (0, 1))
    return tf.data.Dataset.from_tensor_slices(batch).repeat().batch(batch_size // replicas, drop_remainder=True)


def train(strategy, batch, normalization):
    """Return the detections before training, the metrics of STEPS steps, and {name: copies} of what they left."""
    with strategy.scope():
        model, replica_step, variables = build(normalization)
    detector = placement.distribute_detector(
        strategy, functools.partial(detect, model, DetectionFilter(max_detections=8)), jit_compile=False
    )
    found = detector(batch)
    step = placement.distribute_step(strategy, replica_step, jit_compile=False)
    batches = placement.distribute_batches(strategy, functools.partial(dataset, batch), 2, 0)
    metrics = StepLoop(step, batches)(STEPS).metrics
    return (
        found,
        [{name: float(values[i]) for name, values in metrics.items()} for i in range(STEPS)],
        {
            name: [copy.numpy() for copy in strategy.experimental_local_results(variable)]
            for name, variable in variables.items()
        },
    )


def compare(normalization):
    """Return the comparison for one normalisation."""
    batch = conftest.make_batch.__wrapped__()(6, 1)  # unequal images: a mean of means would differ
    found_by_one, whole, of_one = train(placement.make_strategy(), batch, normalization)
    found_by_two, shared, of_two = train(TWO, batch, normalization)
    differences, spread = {}, {}
    for name, copies in of_two.items():
        (expected,) = of_one[name]
        scale = max(1e-6, float(np.abs(expected).max()))
        differences[name] = max(float(np.abs(copy - expected).max()) for copy in copies) / scale
        spread[name] = float(np.abs(copies[0].astype(np.float64) - copies[1]).max())
    detections = {
        name: [one.numpy().tolist(), two.numpy().tolist()]
        for name, one, two in zip(found_by_one._fields, found_by_one, found_by_two)
    }
    return {"detections": detections, "whole": whole, "shared": shared, "differences": differences, "spread": spread}


if __name__ == "__main__":
    print(json.dumps(compare(sys.argv[1])))
