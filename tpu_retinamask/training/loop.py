"""The outer loop of a training: updates in, checkpoints, lines and evaluations out."""

import contextlib
import logging
import signal

import tensorflow as tf

from tpu_retinamask.errors import UserError
from tpu_retinamask.training.progress import Progress
from tpu_retinamask.training.state import TrainState

log = logging.getLogger("tpu_retinamask")


class TrainingInterrupted(Exception):
    """The training was asked to stop before its end, and has saved what it had."""


class StopRequest:
    """Whether the machine wants the training to stop; a cloud announces a preemption by SIGTERM.

    Python sees the signal between two loops, so a loop of `steps_per_loop` steps must be shorter than the notice,
    30 s for a preemptible virtual machine at Google.
    """

    def __init__(self):
        """Begin without a request."""
        self.received = False

    @contextlib.contextmanager
    def listening(self):
        """Note the first SIGTERM within the block; a second one kills."""
        before = signal.signal(signal.SIGTERM, self._note)
        try:
            yield self
        finally:
            signal.signal(signal.SIGTERM, before)

    def _note(self, number, frame):
        del number, frame
        self.received = True
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        log.info("SIGTERM: stopping after this loop")


def loop_length(step: int, *, total_steps: int, steps_per_loop: int, boundaries) -> int:
    """Return how many steps the next loop makes.

    Args:
      step: steps already made.
      total_steps: of the whole training.
      steps_per_loop: longest loop.
      boundaries: intervals whose multiples no loop crosses; None and 0 are passed over.
    """
    left = [interval - step % interval for interval in (steps_per_loop, *boundaries) if interval]
    return min(total_steps - step, *left)


def run_training(loop, state: TrainState, progress: Progress, *, total_steps: int, checkpoint_every: int,
                 steps_per_loop: int = 1, evaluate=None, evaluate_every: int | None = None,
                 stop: StopRequest | None = None):
    """Update the model until it has made `total_steps` updates.

    One process drives all replicas, those on other hosts too, so whatever is saved is saved once.

    Args:
      loop: `count -> LoopResult`, a `StepLoop` whose first batch is that of step `progress.step`.
      state: what is saved.
      progress: what is shown, and the steps already made.
      total_steps: updates over the whole life of the run, those before a restart included.
      checkpoint_every: steps between checkpoints; the last step is always saved.
      steps_per_loop: steps without a look at anything else; the very first step is one alone, since it compiles.
      evaluate: called without arguments; returns a dict of scalars to show.
      evaluate_every: steps between evaluations; the last step is always evaluated.
      stop: asked after each loop.

    Raises:
      NonFiniteLossError: a loss is not finite; the checkpoints before it are kept.
      TrainingInterrupted: `stop` was received, and the state is saved.
      UserError: the devices went away.
    """
    longest = 1
    while progress.step < total_steps:
        count = loop_length(progress.step, total_steps=total_steps, steps_per_loop=longest,
                            boundaries=(checkpoint_every, evaluate_every if evaluate else None))
        longest = steps_per_loop
        progress.update(*_run(loop, count, progress.step))
        done = progress.step >= total_steps
        stopped = stop is not None and stop.received and not done
        if done or stopped or progress.step % checkpoint_every == 0:
            log.info("saved %s", state.save())
        if stopped:
            raise TrainingInterrupted(f"stopped at step {progress.step} of {total_steps}, saved; run the same command "
                                      "to go on")
        if evaluate is not None and (done or evaluate_every and progress.step % evaluate_every == 0):
            progress.write_scalars(evaluate())


def _run(loop, count, step):
    try:
        return loop(count)
    except (tf.errors.UnavailableError, tf.errors.AbortedError) as error:  # a TPU reached over the network
        raise UserError(f"after step {step} the devices no longer answered ({error.message}). The last checkpoint is "
                        "kept: run the same command once they are back") from error
