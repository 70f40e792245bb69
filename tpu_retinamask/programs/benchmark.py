"""Measure the training step: images per second, compile time and peak memory, with and without XLA.

  python -m tpu_retinamask.benchmark --gin_param='benchmark.batch_size = 2' --gin_param='benchmark.num_classes = 80'

Runs the very step that train runs, on one fixed batch that lies in memory, so the input pipeline is not
in the figures. Each mode runs in a process of its own, because peak memory belongs to a process.
"""

import dataclasses
import itertools
import json
import logging
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Sequence

import gin
import keras
import numpy as np
import tensorflow as tf

from tpu_retinamask import config
from tpu_retinamask.errors import UserError
from tpu_retinamask.programs.command_line import Flags
from tpu_retinamask.programs.own_settings import checked
from tpu_retinamask.programs.runtime_choice import make_runtime
from tpu_retinamask.structures import Batch
from tpu_retinamask.tasks.step_speed import time_steps
from tpu_retinamask.training.runtimes.registry import Runtime

log = logging.getLogger(__name__)

MODES = ("jit", "no_jit")


@gin.configurable
@checked(batch_size=(1, None), image_size=(1, None), num_classes=(1, None), max_instances=(1, None), steps=(1, None))
def benchmark(
    mode: str,
    runtime: Runtime,
    *,
    batch_size: int = 2,
    image_size: tuple[int, int] = (512, 512),
    num_classes: int = 80,
    max_instances: int = 100,
    steps: int = 10,
    clip_norm: float | str | None = "train",
) -> dict:
    """Run the training step `steps` times and return its figures.

    Args:
      mode: one of MODES.
      runtime: executes the step.
      batch_size: B.
      image_size: (H, W) of the canvas.
      num_classes: C.
      max_instances: M; half of the rows hold a box.
      steps: counted, after the first, which compiles, and a second that warms up.
      clip_norm: largest global norm of the gradients; "train": that of the training.

    Returns:
      dict of compile_seconds, step_seconds (median), images_per_second, peak_memory_gb, parameters and losses.
    """
    keras.utils.set_random_seed(0)
    recipe = config.recipe()
    if clip_norm != "train":
        recipe = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, clip_norm=clip_norm))
    learner = recipe.make_learner(
        runtime.strategy, num_classes, total_steps=1000, batch_size=batch_size, image_size=image_size
    )
    step = runtime.step(learner.make_step(), jit_compile=mode != "no_jit")
    batch = fixed_batch(batch_size, image_size, max_instances, num_classes)
    loop = runtime.loop(step, itertools.repeat(batch))
    first, median, loss = time_steps(loop, steps)
    return {
        "compile_seconds": first - median,
        "step_seconds": median,
        "images_per_second": batch_size / median,
        "peak_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "parameters": learner.model.count_params(),
        "loss": loss,
        "batch": f"{batch_size} x {image_size[0]} x {image_size[1]}",
        "classes": num_classes,
    }


def fixed_batch(
    batch_size: int, image_size: tuple[int, int], max_instances: int, num_classes: int, mask_size: int = 112
) -> Batch:
    """Return a random Batch that is the same in every run; half of its rows hold a box, the rest is padding."""
    random = np.random.default_rng(0)
    height, width = image_size
    shape = (batch_size, max_instances)
    corner = random.random((*shape, 2)) * [width * 0.75, height * 0.75]
    side = 16 + random.random((*shape, 2)) * [width / 4 - 16, height / 4 - 16]
    real = np.broadcast_to(np.arange(max_instances) < max_instances // 2, shape)
    boxes = np.concatenate([corner, corner + side], axis=-1) * real[..., None]
    classes = np.where(real, random.integers(0, num_classes, shape), -1)
    size = np.tile([height, width], (batch_size, 1))
    return Batch(
        image=tf.constant(random.integers(0, 256, (batch_size, height, width, 3)), tf.uint8),
        content_size=tf.constant(size, tf.int32),
        boxes=tf.constant(boxes, tf.float32),
        classes=tf.constant(classes, tf.int32),
        masks=tf.constant(random.integers(0, 2, (*shape, mask_size, mask_size)), tf.uint8),
        has_mask=tf.constant(real),
        image_scale=tf.ones([batch_size]),
        original_size=tf.constant(size, tf.int32),
        image_id=tf.range(batch_size, dtype=tf.int64),
        dropped=tf.zeros([batch_size], tf.int32),
    )


def format_rows(rows: Sequence[dict]) -> str:
    """Return the figures as a Markdown table."""
    lines = [
        "| step | batch | classes | parameters | compile s | step s | images/s | peak GB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['mode']} | {row['batch']} | {row['classes']} | {row['parameters'] / 1e6:.1f} M | "
            f"{row['compile_seconds']:.1f} | {row['step_seconds']:.2f} | {row['images_per_second']:.2f} | "
            f"{row['peak_memory_gb']:.1f} |"
        )
    return "\n".join(lines)


def run(flags: Flags) -> None:
    """Run the program: as itself for one mode, as its own children for all."""
    config.parse_gin(flags.gin_file, flags.gin_param)
    if flags.mode:
        if flags.mode == "no_jit" and flags.runtime != "tensorflow":
            raise UserError(f"--mode=no_jit with --runtime={flags.runtime}: TensorFlow alone runs a step uncompiled")
        figures = benchmark(flags.mode, make_runtime(flags))
        print(json.dumps(figures | {"mode": flags.mode if flags.runtime == "tensorflow" else flags.runtime}))
        return
    rows = []
    for mode in MODES if flags.runtime == "tensorflow" else ("jit",):
        command = [
            sys.executable,
            *("-m", "tpu_retinamask.benchmark", f"--mode={mode}"),
            *(f"--runtime={flags.runtime}", f"--cache_dir={flags.cache_dir}"),
            *(f"--gin_file={name}" for name in flags.gin_file),
            *(f"--gin_param={text}" for text in flags.gin_param),
        ]
        log.info("measuring %s", mode)
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise UserError(f"{' '.join(command)} ended with {done.returncode}: see the lines above")
        rows.append(json.loads(done.stdout.strip().splitlines()[-1]))
    gpus = len(tf.config.list_physical_devices("GPU"))
    print(
        f"TensorFlow {tf.__version__}, Keras {keras.__version__}, {platform.machine()} with {os.cpu_count()} cores, "
        f"{gpus or 'no'} GPU"
    )
    print(format_rows(rows))
