"""What a training is told, or refused, before its first step: its files, its boxes, the trace of its program."""

import logging

import numpy as np
import tensorflow as tf

from tpu_retinamask.training.devices import placement
from tpu_retinamask.training.loop.device_loop import StepLoop
from tpu_retinamask.xla import audit

log = logging.getLogger("tpu_retinamask")

MAX_UNCOVERED = 0.05  # share of boxes without an anchor at the positive IoU above which to warn


def files_of(records):
    """Yield (what it is, path) of every file that the batches are made of."""
    for record in records:
        yield "image", getattr(record.image, "shard", record.image)
        for instance in record.instances:
            if isinstance(instance.mask, str):  # else it lies in the shard
                yield "mask", instance.mask


def report_coverage(grid, records, pipeline, positive_iou: float):
    """Log the share of boxes that no anchor covers, which are hardly learnt, and how many images hold too many."""
    crowded = sum(len(record.instances) > pipeline.max_instances for record in records)
    if crowded:
        log.warning(
            "%d images hold more objects than InputPipeline.max_instances = %d: as many, chosen at random, "
            "are trained each time such an image is shown",
            crowded,
            pipeline.max_instances,
        )
    scales = pipeline.scales_of(records)
    boxes = [
        np.array(instance.box) * scales[record.height, record.width]
        for record in records
        for instance in record.instances
    ]
    if not boxes:
        log.warning("no boxes at all: the network will learn that there is nothing")
        return
    missed = float(np.mean(grid.best_iou(boxes) < positive_iou))
    sides = np.sqrt([(b[2] - b[0]) * (b[3] - b[1]) for b in boxes])
    message = (
        f"anchors cover {1 - missed:.1%} of {len(boxes)} boxes at IoU {positive_iou} (sides on the canvas: "
        f"5% under {np.percentile(sides, 5):.0f}, median {np.median(sides):.0f}, "
        f"5% over {np.percentile(sides, 95):.0f} pixels; anchor sizes {grid.sizes})"
    )
    if missed > MAX_UNCOVERED:
        log.warning(
            "%s. Boxes without an anchor are found late or never: choose RetinaMask.anchor_sizes, "
            "anchor_ratios or a larger InputPipeline.image_size to fit them",
            message,
        )
    else:
        log.info("%s", message)


def audit_training(strategy, step, batches) -> str:
    """Trace the step of a training and the loop around it, refuse forbidden operations, and say what was traced.

    The step is audited; the loop runs on the host, where a data set's iterator is at home.

    Raises:
      audit.ForbiddenOpError: see there.
    """
    traced = tf.function(step, autograph=False).get_concrete_function(batches.element_spec)
    audit.check(traced)
    counts = audit.count_ops(traced)
    said = f"the step has {sum(counts.values())} operations and no forbidden ops"
    loop = StepLoop(step, batches)
    if loop.in_graph:
        counts = audit.count_ops(loop.trace())
        said += f"; with its loop {sum(counts.values())} operations were traced"
    if placement.is_tpu(strategy) or strategy.num_replicas_in_sync > 1:
        said += f" for {strategy.num_replicas_in_sync} replicas of {type(strategy).__name__}"
    if placement.is_tpu(strategy):  # mirrored replicas meet in operations of other names
        said += f", {counts['CrossReplicaSum']} CrossReplicaSum among them"
    return said
