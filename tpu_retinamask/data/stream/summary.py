"""What a set of annotated images holds, in words and numbers."""

import collections
import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np

from tpu_retinamask.data.annotated_image import AnnotatedImage
from tpu_retinamask.data.annotations.class_names import ClassNames
from tpu_retinamask.data.image_arrays import image_arrays
from tpu_retinamask.data.stream.canvases import filled, propose_canvases
from tpu_retinamask.data.stream.pipeline import InputPipeline
from tpu_retinamask.errors import gin_param
from tpu_retinamask.structures import Batch

PERCENTILES = (0, 5, 50, 95, 100)
WELL_FILLED = 0.8  # share of the canvas from which no others are proposed
MOST_PROPOSED = 4  # canvases: a program is compiled for each


def summarize(images: Sequence[AnnotatedImage], classes: ClassNames, pipeline: InputPipeline) -> str:
    """Describe images, objects and classes, and what the canvas makes of them.

    Args:
      images: at least one.
      classes: names of the classes.
      pipeline: its canvas and its M.
    """
    arrays = image_arrays(images)
    counts = arrays.counts
    without = int(np.sum(~arrays.has_mask))
    scales = pipeline.scales_of(images)
    over = int((counts > pipeline.max_instances).sum())
    lines = [
        f"{len(images)} images, {len(arrays.boxes)} objects, {without} of them without a mask; "
        f"{int((counts == 0).sum())} images without objects",
        f"objects an image: {_spread(counts)}; {over} images hold more than the {pipeline.max_instances} of "
        "InputPipeline.max_instances",
        f"image height: {_spread(arrays.sizes[:, 0])}; "
        f"width: {_spread(arrays.sizes[:, 1])}; "
        f"scale to the canvas of {' or '.join(f'{high} x {wide}' for high, wide in pipeline.canvases)}: "
        f"{_spread(list(scales.values()), '.3g')}",
        said_of_canvases(pipeline, arrays.sizes),
    ]
    if len(arrays.boxes):
        of_box = np.repeat([scales[height, width] for height, width in arrays.sizes.tolist()], counts)
        x1, y1, x2, y2 = arrays.boxes.T
        lines.append(
            "side of a box on the canvas, sqrt(width * height): "
            f"{_spread(np.sqrt((x2 - x1) * (y2 - y1)) * of_box, '.1f')} pixels"
        )
    of_class = collections.Counter(arrays.class_ids.tolist())
    lines.append(f"{len(of_class)} of {classes.num_classes} classes have objects:")
    width = max((len(classes.name_of(key)) for key in of_class), default=0)
    lines += [f"  {classes.name_of(key):<{width}}  {count}" for key, count in of_class.most_common()]
    return "\n".join(lines)


def said_of_canvases(pipeline: InputPipeline, sizes: np.ndarray) -> str:
    """Say how full the canvas is, and which would be fuller.

    Args:
      pipeline: of one canvas or several.
      sizes: [n, 2], heights and widths of the pictures.
    """
    share = filled(pipeline, sizes)
    said = f"pictures fill {share:.0%} of their canvas"
    if share > WELL_FILLED:
        return said
    proposed = propose_canvases(pipeline, sizes, MOST_PROPOSED)
    better = dataclasses.replace(pipeline, image_size=proposed)
    better = better.largest if len(proposed) == 1 else better
    param = gin_param("InputPipeline.image_size", better.image_size)
    return f"{said}; they would fill {filled(better, sizes):.0%} with {param}"


def batch_digest(batch: Batch) -> str:
    """Digest every number of a batch: equal batches, and no others, have equal digests."""
    digest = hashlib.sha256()
    for name, field in zip(Batch._fields, batch):
        array = np.asarray(field)
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _spread(values, form: str = "g") -> str:
    low, five, middle, most, high = np.percentile(np.asarray(values, np.float64), PERCENTILES)
    return f"{low:{form}} to {high:{form}}, median {middle:{form}}, nine in ten from {five:{form}} to {most:{form}}"
