"""The outer loop of a training: batches in, updates, checkpoints, lines and evaluations out."""

import logging
import time

from tpu_retinamask.training.progress import Progress
from tpu_retinamask.training.state import TrainState

log = logging.getLogger("tpu_retinamask")


def run_training(step, batches, state: TrainState, progress: Progress, *, total_steps: int, checkpoint_every: int,
                 evaluate=None, evaluate_every: int | None = None):
    """Update the model until it has made `total_steps` updates.

    Args:
      step: `batch -> metrics`, from `step.compile_step`.
      batches: endless iterable of Batch, beginning with the batch of step `state.step`.
      state: what is saved.
      progress: what is shown.
      total_steps: updates over the whole life of the run, those before a restart included.
      checkpoint_every: steps between checkpoints; the last step is always saved.
      evaluate: called without arguments; returns a dict of scalars to show.
      evaluate_every: steps between evaluations; the last step is always evaluated.

    Raises:
      NonFiniteLossError: a loss is not finite; the checkpoints before it are kept.
    """
    batches = iter(batches)
    while state.step < total_steps:
        started = time.monotonic()
        batch = next(batches)
        progress.waited(time.monotonic() - started)
        progress.update(step(batch))
        done = progress.step >= total_steps
        if done or progress.step % checkpoint_every == 0:
            log.info("saved %s", state.save())
        if evaluate is not None and (done or evaluate_every and progress.step % evaluate_every == 0):
            progress.write_scalars(evaluate())
