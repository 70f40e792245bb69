"""The outer loop of a training: updates in, checkpoints, lines and evaluations out."""

import logging
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import tensorflow as tf

from tpu_retinamask import signs_of_life
from tpu_retinamask.batch_errors import BatchError
from tpu_retinamask.errors import UserError
from tpu_retinamask.training.checkpoints.files import SaveError
from tpu_retinamask.training.checkpoints.state import TrainState
from tpu_retinamask.training.loop.callbacks import Callbacks
from tpu_retinamask.training.loop.device_loop import Loop
from tpu_retinamask.training.loop.history import History
from tpu_retinamask.training.loop.progress import Progress
from tpu_retinamask.training.loop.stop_request import StopRequest, TrainingInterrupted

log = logging.getLogger(__name__)


class Processes(NamedTuple):
    """The part of this process where several make the same steps."""

    writes: bool = True  # saves, evaluates and tells callbacks
    any_says: Callable[[bool], bool] = bool  # whether any of them says so; see `registry.Runtime.any_process`


def loop_length(step: int, *, total_steps: int, steps_per_loop: int, boundaries: Iterable[int | None]) -> int:
    """Return how many steps the next loop makes.

    Args:
      step: steps already made.
      total_steps: of the whole training.
      steps_per_loop: longest loop.
      boundaries: intervals whose multiples no loop crosses; None and 0 are passed over.
    """
    left = [interval - step % interval for interval in (steps_per_loop, *boundaries) if interval]
    return min(total_steps - step, *left)


def run_training(
    loop: Loop,
    state: TrainState,
    progress: Progress,
    *,
    checkpoint_every: int,
    checkpoint_minutes: float | None = None,
    steps_per_loop: int = 1,
    evaluate: Callable[[], dict] | None = None,
    evaluate_every: int | None = None,
    stop: StopRequest | None = None,
    history: History | None = None,
    callbacks: Callbacks | None = None,
    processes: Processes = Processes(),  # noqa: B008  # frozen
) -> None:
    """Update the model until it has made all updates of the run, `progress.total_steps`.

    Whatever is saved is saved once, by the process that writes. A save that fails is told, and the next one tries
    again; the last must succeed.

    Args:
      loop: whose first batch is that of step `progress.step`.
      state: what is saved.
      progress: what is shown, and the steps already made.
      checkpoint_every: steps between checkpoints; the last step is always saved.
      checkpoint_minutes: longest time without a checkpoint, looked at after each loop; None: steps alone count.
      steps_per_loop: steps without a look at anything else; the very first step is one alone, since it compiles.
      evaluate: called without arguments; returns a dict of scalars to show.
      evaluate_every: steps between evaluations; the last step is always evaluated.
      stop: asked after each loop.
      history: is told losses and scores, saves the best weights, and may end the training early.
      callbacks: are told of steps, evaluations and checkpoints, by the process that writes.
      processes: this one's part, where several make the same steps.

    Raises:
      NonFiniteLossError: a loss is not finite; the checkpoints before it are kept.
      TrainingInterrupted: `stop` was received, and the state is saved.
      SaveError: the last state could not be saved.
      UserError: the devices went away.
    """
    total_steps, stop, callbacks = progress.total_steps, stop or StopRequest(), callbacks or Callbacks()

    def is_due(interval):
        return progress.step >= total_steps or (bool(interval) and progress.step > 0 and progress.step % interval == 0)

    def evaluate_now():
        assert evaluate is not None  # else nothing is ever due
        if not processes.writes:
            return
        loop.settle()
        signs_of_life.now(f"scoring the validation images at step {progress.step}")
        scores = evaluate()
        progress.write_scalars(scores)
        callbacks.evaluated(progress.step, scores)
        if history is not None:
            history.evaluated(progress.step, scores, state)

    def save(*, must):
        if not processes.writes:
            return progress.step
        loop.settle()
        return _save(state, progress.step, saved_step, callbacks, must=must)

    if evaluate is None:
        evaluate_every = None
    elif history is not None and is_due(evaluate_every) and not history.scored(progress.step):
        stop.at(progress.step, progress.step, long=True)
        evaluate_now()  # the life before saved this step and ended before it was scored
    longest, first, saved_step, saved_at = 1, True, progress.step, time.monotonic()
    while progress.step < total_steps:
        reason = history.stop_reason if history is not None else None
        if processes.any_says(reason is not None):
            log.warning("stopped at step %d of %d: %s", progress.step, total_steps, reason or "another process did")
            break
        count = loop_length(
            progress.step,
            total_steps=total_steps,
            steps_per_loop=longest,
            boundaries=(checkpoint_every, evaluate_every),
        )
        stop.at(progress.step, saved_step, long=first)
        at = f"step {progress.step + 1} of {total_steps}"
        signs_of_life.now(f"compiling the training step, for {at}" if first else at, timed=first)
        longest, first = steps_per_loop, False
        metrics, waited = _run(loop, count, progress.step)
        stop.at(progress.step + count, saved_step)
        progress.update(metrics, waited)
        callbacks.steps(progress.step, metrics)
        if history is not None:
            history.count(metrics["loss"])
            if is_due(evaluate_every or checkpoint_every):
                history.end_interval(progress.step)
        stopped = progress.step < total_steps and processes.any_says(stop.received)
        late = bool(checkpoint_minutes) and time.monotonic() - saved_at >= 60 * checkpoint_minutes
        scored = evaluate is not None and is_due(evaluate_every) and not stopped
        # Before it is scored too: an evaluation may take longer than the notice of a preemption.
        if stopped or late or scored or is_due(checkpoint_every):
            saved_step, saved_at = save(must=stopped), time.monotonic()
        if scored:
            stop.at(progress.step, saved_step, long=True)
            evaluate_now()
            stopped = progress.step < total_steps and processes.any_says(stop.received)
        if stopped:
            if saved_step != progress.step:
                save(must=True)
            raise TrainingInterrupted(
                f"stopped at step {progress.step} of {total_steps}, saved; run the same command to go on",
                stop.signal_number,
            )
    if saved_step != progress.step:  # ended early, or the last save failed
        save(must=True)


def _save(state, step, saved_step, callbacks, *, must):
    """Save a step and return it; where that fails, and need not succeed, the step saved before."""
    try:
        path = state.save()
    except SaveError as error:
        if must:
            raise
        log.error(
            "%s. THE TRAINING GOES ON, SAVED UP TO STEP %d ONLY, and tries again at the next checkpoint. Make "
            "room meanwhile",
            error,
            saved_step,
        )
        return saved_step
    log.info("saved %s", path)
    callbacks.saved(step, path)
    return step


def _run(loop, count, step):
    try:
        return loop(count)
    except (tf.errors.UnavailableError, tf.errors.AbortedError) as error:  # a TPU reached over the network
        raise UserError(
            f"after step {step} the devices, or the data service, no longer answered ({error.message}). The "
            "last checkpoint is kept: run the same command once they are back"
        ) from error
    except BatchError as error:
        raise UserError(
            f"after step {step} {error}. The last checkpoint is kept. If "
            "files have changed or gone since the start, put them back and run the same command; "
            "`prepare --verify` names the damaged files of a --data_dir"
        ) from error
