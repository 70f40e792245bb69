"""How long a step of a recipe takes on this machine, its input included: measured, not guessed."""

import gc
import math
import time

import keras
import numpy as np

from tpu_retinamask import signs_of_life
from tpu_retinamask.data.sources.opening import Sources
from tpu_retinamask.recipe import Recipe
from tpu_retinamask.training.loop.device_loop import Loop
from tpu_retinamask.training.runtimes.registry import Runtime

WARM_UP, MEASURED = 2, 5  # steps; the first compiles


def measure_step(recipe: Recipe, sources: Sources, runtime: Runtime) -> tuple[float, float]:
    """Make some steps of a training that is thrown away; return the seconds of one, and of the first.

    Args:
      recipe: of the training.
      sources: its images.
      runtime: executes the step.
    """
    batch_size = recipe.train.batch_on(runtime.replicas)
    keras.utils.set_random_seed(recipe.train.seed)
    learner = recipe.make_learner(
        runtime.strategy, sources.classes.num_classes, total_steps=1000, batch_size=batch_size
    )

    def make_dataset(*args, **kwargs):
        return recipe.pipeline.largest.train_dataset(sources.train, *args, **kwargs)

    step = runtime.step(learner.make_step(), jit_compile=recipe.train.jit_compile)
    loop = runtime.loop(step, runtime.batches(make_dataset, batch_size, 0))
    first, usual, _ = time_steps(loop, MEASURED)
    del loop, step, learner
    gc.collect()  # before the training makes its own
    return usual, first


def time_steps(loop: Loop, count: int) -> tuple[float, float, float]:
    """Return the seconds of the first step, the median of those of `count` later ones, and the last loss.

    Args:
      loop: over any batches; its first step compiles, its second warms up.
      count: steps that are measured.
    """
    seconds, loss = [], math.nan
    for number in range(WARM_UP + count):
        signs_of_life.now("compiling a step, to measure it" if number == 0 else "measuring a step", timed=number == 0)
        started = time.perf_counter()
        loss = float(loop(1).metrics["loss"][0])  # which waits for it
        seconds.append(time.perf_counter() - started)
    return seconds[0], float(np.median(seconds[WARM_UP:])), loss
