"""Run by test_accumulation in a process of its own, because a process is divided into devices before it starts.

Trains on the same four images in parts by two replicas and, told "parts", undivided on one device, or, told
"statistics", in parts on one device with the self-adjusting box loss, whose parts know only those before them. Prints
JSON: metrics of each step, and the largest differences of all numbers of the state from those of the one device.
"""

import json
import sys

import numpy as np
import tensorflow as tf

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)

import conftest  # the fixtures' functions, once the devices are set

from tpu_retinamask.model.losses import Criterion
from tpu_retinamask.structures import Batch
from tpu_retinamask.training.box_statistics import BoxStatistics
from tpu_retinamask.training.step import make_train_step
from tpu_retinamask.training.weight_average import WeightAverage

STEPS = 2
IMAGES = (6, 1, 0, 3)  # instances: a mean of means would differ


def run(strategy, accumulate_steps, box_loss):
    """Return metrics of each step and {name: copies} of everything that a checkpoint would hold."""
    with strategy.scope():
        model = conftest.small_model.__wrapped__()(class_bias=-1.0)
        optimizer = conftest.built_optimizer.__wrapped__()(model, learning_rate=0.01, weight_decay=0.01)
        # So large that beta follows the distances of a network that has learnt nothing.
        statistics, average = BoxStatistics(2.0), WeightAverage(model, 0.15)
    # An average over regions knows how many there are only behind the forward pass of all parts.
    criterion = Criterion(mask_rois=12, mask_rois_from_detections=12, box_loss=box_loss, mask_average="images")
    step = make_train_step(
        model,
        criterion,
        optimizer,
        clip_norm=0.5,
        accumulate_steps=accumulate_steps,
        box_statistics=statistics,
        average=average,
    )
    replicas = strategy.num_replicas_in_sync
    batch = conftest.make_batch.__wrapped__()(*IMAGES)

    def share(context):
        index, size = context.replica_id_in_sync_group, len(IMAGES) // replicas
        return Batch(*[part[index * size : (index + 1) * size] for part in batch])

    shares = strategy.experimental_distribute_values_from_function(share)

    @tf.function(autograph=False)
    def distributed(values):
        return strategy.run(step, args=(values,))

    metrics = []
    for _ in range(STEPS):
        values = distributed(shares)
        metrics.append({name: float(strategy.experimental_local_results(value)[-1]) for name, value in values.items()})
    variables = {v.path.split("/", 1)[1]: v.value for v in model.variables + optimizer.variables}
    variables |= {f"box {name}": v for name, v in statistics.variables.items()}
    variables |= {f"average {path}": v for path, v in average.variables.items()}
    return metrics, {
        name: [copy.numpy() for copy in strategy.experimental_local_results(variable)]
        for name, variable in variables.items()
    }


def differences(one, two):
    """Return the largest differences relative to each tensor's largest element, and the largest between copies."""
    relative = {
        name: max(float(np.abs(copy - one[name][0]).max()) for copy in copies)
        / max(1e-6, float(np.abs(one[name][0]).max()))
        for name, copies in two.items()
    }
    return {
        "relative": relative,
        "apart": {name: float(np.abs(copies[0] - copies[-1]).max()) for name, copies in two.items()},
    }


if __name__ == "__main__":
    ONE = tf.distribute.OneDeviceStrategy("CPU:0")
    TWO = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice())
    OF_ONE, BOX_LOSS = {"parts": (1, "smooth_l1"), "statistics": (2, "self_adjusting")}[sys.argv[1]]
    (METRICS, STATE), (SHARED, COPIES) = run(ONE, OF_ONE, BOX_LOSS), run(TWO, 2, BOX_LOSS)
    print(json.dumps({"metrics": [METRICS, SHARED], **differences(STATE, COPIES)}))
