"""Where a training starts: its own checkpoint, another run's whole state, or weights alone; and what is said of it."""

import dataclasses
import logging
import os

from tpu_retinamask.errors import UserError
from tpu_retinamask.pretrained.load import load_weights
from tpu_retinamask.pretrained.own_checkpoint import find_checkpoint
from tpu_retinamask.training.checkpoints.files import CheckpointFiles
from tpu_retinamask.training.checkpoints.state import TrainState
from tpu_retinamask.training.weight_average import WeightAverage

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Start:
    """Where a new run starts.

    Attributes:
      weights: a `.h5` of keras-maskrcnn, keras-retinanet or keras.applications, a model directory or checkpoint of
        ours, or "imagenet"; see `pretrained`. Step, optimizer and schedule start anew. None: random weights.
      skip_mismatched: layers whose shapes differ from those of `weights` start anew (other classes).
      otherwise: weights where `weights` is None ("imagenet").
      keep_optimizer: take over the whole state of the run that `weights` names: optimizer, step and with it the place
        in the schedule, average and statistics.

    Raises:
      UserError: keep_optimizer without weights.
    """

    weights: str | None = None
    skip_mismatched: bool = False
    keep_optimizer: bool = False
    otherwise: str | None = None

    def __post_init__(self) -> None:
        if self.keep_optimizer and not self.weights:
            raise UserError("--keep_optimizer takes over the state of the run that --weights names: give both")


def noted_before(model_dir: str, start: Start) -> tuple[int, dict]:
    """Return the step that a run will go on from, and what is noted of it, before there is a state to restore.

    Args:
      model_dir: of the run.
      start: for a run without a checkpoint of its own.

    Raises:
      UserError: a source of weights that does not fit.
    """
    noted = CheckpointFiles(os.path.join(model_dir, "checkpoints")).last_noted()
    if noted is None and start.keep_optimizer and start.weights:
        saved = find_checkpoint(start.weights)
        noted = saved and (saved.step, saved.values)
    return noted or (0, {})


def start_state(state: TrainState, total_steps: int, start: Start, average: WeightAverage | None) -> int:
    """Go on from the run's own checkpoint, or start as told; return the step.

    Whatever is chosen is said: what was taken over, what starts anew, and the learning rate that follows.

    Args:
      state: of the run; its variables are set.
      total_steps: of the run's whole life.
      start: for a run without a checkpoint of its own.
      average: of the weights, where the run keeps one.

    Raises:
      UserError: a checkpoint or a source of weights that does not fit.
    """
    step = state.restore()
    if step is not None:
        if start.weights:
            log.info("--weights %s is passed over: the run goes on from its own checkpoint", start.weights)
    elif start.keep_optimizer and start.weights:
        saved = find_checkpoint(start.weights)
        if saved is None:
            raise UserError(f"--weights {start.weights} holds no optimizer: leave --keep_optimizer out")
        step = state.take(saved)
    if step is None:
        _start_anew(state, total_steps, start)
        return 0
    assert state.restored is not None
    if "average" in state.missing_parts and average is not None:
        average.restart()
    for part in state.missing_parts:
        log.warning(
            "%s holds no %s: %s",
            state.restored.path,
            part.replace("_", " "),
            "it starts from the weights" if part == "average" else "they start anew",
        )
    _tell_schedule(state, step, total_steps)
    return step


def _start_anew(state: TrainState, total_steps: int, start: Start) -> None:
    source = start.weights or start.otherwise
    if source:
        log.info("%s", load_weights(state.model, source, skip_mismatched=start.skip_mismatched))
        log.info(
            "step, optimizer and schedule start anew: learning rate %.3g at step 0 of %d (--keep_optimizer takes over "
            "those of another run)",
            state.learning_rate,
            total_steps,
        )
    elif state.model.backbone.frozen_statistics:
        log.warning(
            "random weights under frozen normalisation: the statistics of the backbone are those of no data and never "
            "change. Give --weights, or set RetinaMask.normalization to 'batch' or 'group'"
        )


def _tell_schedule(state: TrainState, step: int, total_steps: int) -> None:
    restored = state.restored
    rate, earlier = state.learning_rate, restored.values.get("learning_rate") if restored else None
    log.info(
        "resuming at step %d of %d with a learning rate of %.3g%s",
        step,
        total_steps,
        rate,
        ", which is the end: raise train.epochs or train.steps to go on, or start another --model_dir with --weights "
        "and a schedule of its own"
        if step >= total_steps
        else "",
    )
    if earlier is not None and abs(rate - earlier) > 1e-6 * abs(earlier):
        log.warning(
            "the schedule is not the one the checkpoint was saved under: its learning rate was %.3g and is now %.3g "
            "(make_optimizer, train.epochs, train.steps and train.batch_size set it)",
            earlier,
            rate,
        )
