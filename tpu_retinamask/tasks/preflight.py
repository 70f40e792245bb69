"""What a training is told, or refused, before its first step: its files, its boxes, the trace of its program."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from tpu_retinamask.data.annotated_image import AnnotatedImage
from tpu_retinamask.data.image_arrays import image_arrays
from tpu_retinamask.data.record_format import HasPlaces, StoredImage
from tpu_retinamask.data.stream.canvas_boxes import MOST_COMPARED, boxes_on_canvas
from tpu_retinamask.data.stream.pipeline import InputPipeline
from tpu_retinamask.errors import gin_param
from tpu_retinamask.ops.anchors import AnchorGrid
from tpu_retinamask.planning.anchor_choice import choose_anchors, has_levels_of_choice, some_of
from tpu_retinamask.training.runtimes.registry import Runtime
from tpu_retinamask.xla import audit

log = logging.getLogger(__name__)

MAX_UNCOVERED = 0.05  # share of boxes without an anchor at the positive IoU above which to warn
WORTH_SAYING = 0.01  # gain of coverage from which others are proposed


def files_of(images: Iterable[AnnotatedImage]) -> Iterator[tuple[str, str]]:
    """Yield (what it is, path) of every file that the batches are made of."""
    if isinstance(images, HasPlaces):
        yield from (("image", shard) for shard in images.places().shards)
        return
    for annotated in images:
        image = annotated.image
        if isinstance(image, StoredImage):
            yield "image", image.shard
        else:
            yield "image", image if isinstance(image, str) else image.path
        for instance in annotated.instances:
            for path in instance.mask.files() if instance.mask is not None else ():
                yield "mask", path


def report_coverage(
    grid: AnchorGrid, images: Sequence[AnnotatedImage], pipeline: InputPipeline, positive_iou: float
) -> None:
    """Log the share of boxes that no anchor covers, which are hardly learnt, and how many images hold too many."""
    arrays = image_arrays(images)
    crowded = int(np.sum(arrays.counts > pipeline.max_instances))
    if crowded:
        log.warning(
            "%d images hold more objects than InputPipeline.max_instances = %d: as many, chosen at random, "
            "are trained each time such an image is shown",
            crowded,
            pipeline.max_instances,
        )
    if not len(arrays.boxes):
        log.warning("no boxes at all: the network will learn that there is nothing")
        return
    boxes, total = found = boxes_on_canvas(images, pipeline, MOST_COMPARED)
    missed = float(np.mean(grid.best_iou(boxes) < positive_iou))
    sides = found.sides
    compared = str(total) if len(boxes) == total else f"{len(boxes)} out of {total}"
    message = (
        f"anchors cover {1 - missed:.1%} of {compared} boxes at IoU {positive_iou} (sides on the canvas: "
        f"5% under {np.percentile(sides, 5):.0f}, median {np.median(sides):.0f}, "
        f"5% over {np.percentile(sides, 95):.0f} pixels; anchor sizes {grid.sizes})"
    )
    if missed > MAX_UNCOVERED:
        log.warning(
            "%s. Boxes without an anchor are found late or never: %s",
            message,
            _remedy(grid, boxes, positive_iou, 1.0 - missed),
        )
    else:
        log.info("%s", message)


def _remedy(grid: AnchorGrid, boxes: np.ndarray, positive_iou: float, coverage: float) -> str:
    """Return what to write so that more boxes have an anchor."""
    larger = "a larger InputPipeline.image_size makes small boxes larger"
    if not has_levels_of_choice(grid):
        return f"choose RetinaMask.anchor_sizes and anchor_ratios to fit them; {larger}"
    chosen = choose_anchors(some_of(boxes), positive_iou)
    if chosen.coverage < coverage + WORTH_SAYING:
        return f"{larger}, a lower Criterion.positive_iou lets more of them have one"
    params = " ".join(gin_param(name, value) for name, value in chosen.settings.items())
    return f"{chosen.coverage:.1%} would have one with {params}; {larger}"


def audit_training(runtime: Runtime, step: Callable, streams: Sequence[Any]) -> str:
    """Trace the step of a training and the loop around it, refuse forbidden operations, and say what was traced.

    The step is audited; the loop runs on the host, where a data set's iterator is at home.

    Args:
      runtime: of the training.
      step: from `runtime.step`.
      streams: the batches of each canvas, for each of which the step is traced.

    Raises:
      audit.ForbiddenOpError: see there.
    """
    canvases = {str(batches.element_spec): batches for batches in streams}
    found = [runtime.trace(step, batches) for batches in canvases.values()]
    for traced, _ in found:
        audit.check(traced)
    traced, loop = found[0]
    counts = audit.count_ops(traced)
    said = f"the step has {sum(counts.values())} operations and no forbidden ops"
    if loop is not None:
        counts = audit.count_ops(loop)
        said += f"; with its loop {sum(counts.values())} operations were traced"
    if runtime.on_tpu or runtime.replicas > 1:
        said += f" for {runtime.replicas} replicas of {type(runtime.strategy).__name__}"
    if runtime.on_tpu:  # mirrored replicas meet in operations of other names
        said += f", {counts['CrossReplicaSum']} CrossReplicaSum among them"
    return said
