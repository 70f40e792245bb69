r"""Measure the input pipeline: each stage alone, all together, and which stage bounds.

  python -m tpu_retinamask.benchmark_input --annotations=train.csv --classes=classes.csv --gin_file=run/nuclei_demo.gin

The stages are timed one image after another, on images that lie in memory where the stage before would have put them,
and none of them is spared by InputPipeline.cache = 'decoded'; the whole is the pipeline itself, with its cache and all
its threads. Files that were opened lately come from the system's memory and
not from the disk: so it is in training from the second epoch on, where they fit.
"""

import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import gin
import numpy as np
import tensorflow as tf

from tpu_retinamask import config
from tpu_retinamask.data.annotated_image import AnnotatedImage
from tpu_retinamask.data.sources.opening import open_images
from tpu_retinamask.data.stream.canvases import training_batches
from tpu_retinamask.data.stream.image_tensors import image_tensors
from tpu_retinamask.data.stream.pipeline import InputPipeline
from tpu_retinamask.programs.command_line import Flags
from tpu_retinamask.programs.own_settings import checked

STAGES = ("read", "decode", "resize", "augment", "masks", "batch")


class Report(NamedTuple):
    """What was measured."""

    seconds: dict  # stage -> seconds an image, alone
    images_per_second: float  # of the whole pipeline
    first_batch: float  # seconds until the whole gave its first batch
    batch_size: int

    @property
    def bound(self) -> str:
        """Return the stage that takes the most time."""
        return max(self.seconds, key=lambda stage: self.seconds[stage])


@gin.configurable
@checked(batch_size=(1, None), images=(1, None), batches=(1, None))
def benchmark_input(
    pipeline: InputPipeline,
    found: Sequence[AnnotatedImage] | Callable[[], Sequence[AnnotatedImage]],
    *,
    batch_size: int = 8,
    images: int = 64,
    batches: int = 20,
) -> Report:
    """Time the stages of an input pipeline, and the whole.

    Args:
      pipeline: InputPipeline.
      found: of `scan.scan_images` or of a prepared data set, or a function that opens them.
      batch_size: B.
      images: timed in each stage, evenly spaced among the records.
      batches: timed of the whole, after two that warm up.

    Returns:
      Report.
    """
    found = found() if callable(found) else found
    chosen = np.unique(np.linspace(0, len(found) - 1, min(images, len(found))).astype(int))
    seconds = time_stages(pipeline, [found[number] for number in chosen], batch_size)
    started = time.perf_counter()
    stream = training_batches(pipeline, found, batch_size)
    next(stream)
    first_batch = time.perf_counter() - started
    next(stream)
    started = time.perf_counter()
    for _ in range(batches):
        next(stream)
    return Report(seconds, batch_size * batches / (time.perf_counter() - started), first_batch, batch_size)


def time_stages(pipeline: InputPipeline, images: Sequence[AnnotatedImage], batch_size: int) -> dict[str, float]:
    """Return the seconds an image that each of STAGES takes, alone and one image after another.

    Args:
      pipeline: InputPipeline.
      images: the images to time.
      batch_size: images that are joined.
    """
    pipeline = pipeline.largest
    source = image_tensors(images, pipeline.cache in ("files", True))
    count = len(images)
    positions = [tf.constant(position, tf.int64) for position in range(count)]
    seeds = [tf.constant([pipeline.seed, position], tf.int64) for position in range(count)]
    pixels = tf.TensorSpec([None, None, 3], tf.uint8)
    number, seed = tf.TensorSpec([], tf.int64), tf.TensorSpec([2], tf.int64)
    unchanged = dataclasses.replace(pipeline, augmentation=None)
    seconds = {}

    def timed(stage, function, signature, *columns):
        # autograph=False: these are plain graph operations.
        run = tf.function(function, autograph=False, input_signature=signature)
        rows = list(zip(*columns))
        run(*rows[0])
        started = time.perf_counter()
        found = [run(*row) for row in rows]
        seconds[stage] = (time.perf_counter() - started) / len(rows)
        return found

    def fields(position):
        found = source.read(position)
        return found.size, found.boxes, found.classes, found.has_mask, found.image_id

    def compose(settings, picture, seed, size, boxes, classes, has_mask, image_id):
        return settings.compose(
            lambda: picture,
            lambda boxes, rows, side: tf.zeros([tf.size(rows), side, side], tf.uint8),
            size=size,
            original_size=size,
            boxes=boxes,
            classes=classes,
            has_mask=has_mask,
            image_id=image_id,
            seed=seed,
        )

    def masks(position):
        found = source.read(position)
        rows = tf.range(tf.minimum(tf.shape(found.boxes)[0], pipeline.max_instances))
        return found.crop_masks(tf.gather(found.boxes, rows), rows, pipeline.mask_size)

    timed("read", lambda position: source.read(position).contents, [number], positions)
    pictures = timed("decode", lambda position: source.read(position).picture(), [number], positions)
    seconds["decode"] -= seconds["read"]  # it began with the file
    described = timed("fields", fields, [number], positions)
    inputs = [
        pixels,
        seed,
        tf.TensorSpec([2], tf.int32),
        tf.TensorSpec([None, 4]),
        tf.TensorSpec([None], tf.int32),
        tf.TensorSpec([None], tf.bool),
        number,
    ]
    columns = [pictures, seeds, *zip(*described)]
    samples = timed("resize", lambda *values: compose(unchanged, *values), inputs, *columns)
    seconds["augment"] = 0.0
    if pipeline.augmentation is not None:
        timed("augment", lambda *values: compose(pipeline, *values), inputs, *columns)
        seconds["augment"] -= seconds["resize"]
    timed("masks", masks, [number], positions)
    seconds["masks"] -= seconds["fields"]  # it began with them; of a prepared data set that is the whole annotated
    joined = tf.data.Dataset.from_tensors(samples[0]).repeat(10 * batch_size).batch(batch_size, drop_remainder=True)
    started = time.perf_counter()
    for _ in joined:
        pass
    seconds["batch"] = (time.perf_counter() - started) / (10 * batch_size)
    return {stage: max(0.0, seconds[stage]) for stage in STAGES}


def format_report(report: Report) -> str:
    """Return the figures as a table, and what they say."""
    total = sum(report.seconds.values())
    lines = [f"{'stage':<10}{'ms/image':>10}{'images/s':>11}{'share':>8}"]
    for stage, seconds in report.seconds.items():
        rate = f"{1 / seconds:>11,.0f}" if seconds else f"{'-':>11}"
        lines.append(f"{stage:<10}{1000 * seconds:>10.2f}{rate}{seconds / total:>8.0%}")
    lines.append(f"{'all alone':<10}{1000 * total:>10.2f}{1 / total:>11,.0f}{1:>8.0%}")
    lines.append(f"{'pipeline':<10}{1000 / report.images_per_second:>10.2f}{report.images_per_second:>11,.1f}")
    lines.append(
        f"{report.bound} bounds: {report.seconds[report.bound] / total:.0%} of the work. {ADVICE[report.bound]}"
    )
    return "\n".join(lines)


ADVICE = {
    "read": "InputPipeline.cache = 'files' keeps the files in memory; prepare writes them into few large ones.",
    "decode": "InputPipeline.cache = 'decoded' decodes once where memory allows; pictures larger than the canvas may "
    "be made smaller beforehand.",
    "resize": "A smaller InputPipeline.image_size, or more cores: --data_service.",
    "augment": "Fewer changes (rotation, shear and zoom cost most), or more cores: --data_service.",
    "masks": "InputPipeline.cache = 'decoded', a data set written by prepare, a smaller InputPipeline.mask_size or "
    "fewer max_instances.",
    "batch": "Memory bounds: smaller InputPipeline.image_size, max_instances or mask_size.",
}


def run(flags: Flags) -> None:
    """Run the program."""
    config.parse_gin(flags.gin_file, flags.gin_param)
    pipeline = config.InputPipeline()
    settings, images = config.reading(), []

    def opened():
        _, found = open_images(
            flags.annotations,
            flags.classes,
            flags.data_dir,
            "train",
            settings=settings,
            image_folder=flags.images,
            source_format=flags.format,
        )
        images.extend(found)
        return found

    report = benchmark_input(pipeline, opened)
    print(
        f"{len(images)} images, batches of {report.batch_size}, {os.cpu_count()} cores, TensorFlow {tf.__version__}; "
        f"first batch after {report.first_batch:.1f} s"
    )
    print(format_report(report))
