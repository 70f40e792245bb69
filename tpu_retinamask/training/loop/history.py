"""How a training fares: its losses and scores over time, the best of them, and whether to go on."""

import json
import logging
import math
import os
from collections.abc import Iterable

import tensorflow as tf

from tpu_retinamask.files import WriteError, read_text, reason_of, write_json_atomically
from tpu_retinamask.training.checkpoints.files import SaveError
from tpu_retinamask.training.checkpoints.state import TrainState

log = logging.getLogger(__name__)

FILE = "history.json"
SCORE = "val/segm/AP"
FLAT = 0.02  # share of the loss: what moves less has not moved
ADVICE = (
    "Look at the data with inspect_data and at a step with --debug; check the share of boxes that anchors cover; "
    "try another learning rate, a longer warm-up, or --weights to start from"
)


class History:
    """The mean losses and the scores of a run, kept in its model directory, so that a restart goes on with them.

    Attributes:
      stop_reason: why the training should end before its last step, or None.
    """

    def __init__(
        self,
        model_dir: str | None,
        start_step: int = 0,
        *,
        stop_after: int | None = None,
        collapse_after: int | None = 5,
        stop_collapsed: bool = False,
    ) -> None:
        """Read what an earlier life of the run wrote, up to the step it goes on from.

        Args:
          model_dir: the file lies here; None: nothing is read or written.
          start_step: entries of later steps are forgotten; they will come again.
          stop_after: evaluations without a better mask AP after which to stop; None: never.
          collapse_after: evaluations in a row with a mask AP of 0, or intervals in a row over which the loss
            has not fallen, after which to warn; None: never.
          stop_collapsed: stop instead of warning.
        """
        self.path = model_dir and os.path.join(model_dir, FILE)
        self.stop_after, self.collapse_after, self.stop_collapsed = stop_after, collapse_after, stop_collapsed
        self.entries = [entry for entry in self._read() if entry["step"] <= start_step]
        self.stop_reason = None
        self._losses, self._told, self._told_unscored = [], None, False
        self._judge()

    def scored(self, step: int) -> bool:
        """Tell whether a step has been evaluated."""
        return any(entry["step"] == step and SCORE in entry for entry in self.entries)

    def count(self, losses: Iterable[float]) -> None:
        """Take in the losses of some steps."""
        self._losses.extend(float(loss) for loss in losses)

    def end_interval(self, step: int) -> None:
        """Note the mean of the losses since the last interval ended."""
        if self._losses:
            self._note(step, {"loss": sum(self._losses) / len(self._losses)})
            self._losses.clear()

    def evaluated(self, step: int, scores: dict, state: TrainState | None = None) -> None:
        """Note an evaluation; the best one's weights are saved in a folder of their own."""
        score = scores.get(SCORE)
        if score is None or not math.isfinite(score):  # nothing to find in the validation images
            score = None
            if not self._told_unscored:
                log.warning(
                    "the evaluation gives no mask AP (%s), as no validation image holds a mask: no best checkpoint "
                    "is kept, and train.stop_after has nothing to go by",
                    SCORE,
                )
            self._told_unscored = True
        # Saved first: a step that is noted as scored is not scored again after a kill.
        if state is not None and score is not None:
            try:
                path = state.save_best(score)
                if path:
                    log.info("best mask AP so far, %.4f: saved %s", score, path)
            except SaveError as error:
                log.error("%s; the training goes on", error)
        self._note(step, {SCORE: score})

    def _note(self, step, values):
        if not self.entries or self.entries[-1]["step"] != step:
            self.entries.append({"step": step})
        self.entries[-1].update(values)
        try:
            if self.path is not None:
                write_json_atomically(self.path, self.entries)
        except WriteError as error:
            log.error("%s", error)
        self._judge()

    def _judge(self):
        collapse = self._collapse()
        if collapse and self.stop_collapsed:
            self.stop_reason = f"{collapse}. {ADVICE}"
        elif collapse and collapse.split(",")[0] != self._told:
            log.warning("%s. %s", collapse, ADVICE)
        self._told = collapse and collapse.split(",")[0]
        scores = [(entry[SCORE], entry["step"]) for entry in self.entries if entry.get(SCORE) is not None]
        if self.stop_after and scores:
            best, at = max(scores, key=lambda pair: (pair[0], -pair[1]))
            since = sum(step > at for _, step in scores)
            if since >= self.stop_after:
                self.stop_reason = (
                    f"mask AP has not risen above {best:.4f}, of step {at}, in {since} evaluations (train.stop_after)"
                )

    def _collapse(self):
        count = self.collapse_after
        if not count:
            return None
        scores = [entry[SCORE] for entry in self.entries if entry.get(SCORE) is not None]
        if len(scores) >= count and not any(scores[-count:]):
            return f"mask AP is 0, in each of the last {count} evaluations (train.collapse_after)"
        losses = [entry["loss"] for entry in self.entries if "loss" in entry]
        if len(losses) > count and not any(scores[-1:]):  # a loss that is flat at a good score has converged
            least, greatest = min(losses[-count:]), max(losses[-count:])
            if greatest - least <= FLAT * greatest and least >= (1.0 - FLAT) * losses[0]:
                return (
                    f"the loss does not fall, {losses[0]:.4f} at first and {losses[-1]:.4f} now, over the last "
                    f"{count} intervals (train.collapse_after)"
                )
        return None

    def _read(self):
        if self.path is None or not tf.io.gfile.exists(self.path):
            return []
        try:
            entries = [dict(entry, step=int(entry["step"])) for entry in json.loads(read_text(self.path))]
            figures = [entry.get("loss", 0.0) for entry in entries] + [entry.get(SCORE) or 0.0 for entry in entries]
            if not all(isinstance(figure, int | float) for figure in figures):
                raise TypeError("a loss or a score is no number")
            return entries
        except (ValueError, LookupError, TypeError, OverflowError, RecursionError) as error:
            log.warning("%s cannot be read and starts anew: %s", self.path, reason_of(error))
            return []
