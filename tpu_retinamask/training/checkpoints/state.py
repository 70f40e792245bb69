"""The state of a run: the weights, the optimizer and, in it, the step; and whatever else must go on as it was."""

import logging
import os

import keras
import numpy as np
import tensorflow as tf

from tpu_retinamask.errors import NonFiniteLossError, UserError, listed
from tpu_retinamask.training.checkpoints.files import CheckpointFiles, DamagedCheckpointError, SavedCheckpoint
from tpu_retinamask.training.checkpoints.images_seen import NOTED, Seen
from tpu_retinamask.training.checkpoints.keys import variable_key
from tpu_retinamask.training.checkpoints.reading import reading, refuse_not_finite

log = logging.getLogger(__name__)

LAST, BEST = "last", "best"


class TrainState:
    """The model and optimizer of a run, saved to and restored from its model directory.

    Attributes:
      restored: SavedCheckpoint that `restore` took, or None.
      missing_parts: names of the `extra` parts that it lacks; they hold what they were created with.
      files, best: CheckpointFiles of the newest and of the best checkpoints.
    """

    def __init__(
        self,
        model_dir: str,
        model: keras.Model,
        optimizer: keras.Optimizer | None = None,
        keep: int = 3,
        extra: dict | None = None,
    ) -> None:
        """Attach to a model directory.

        Args:
          model_dir: checkpoints lie in its folder `checkpoints`, the best one in `best`.
          model: RetinaMask with its weights created.
          optimizer: built Keras optimizer; None: only the model is restored.
          keep: newest checkpoints kept.
          extra: further parts, {name: {name: tf.Variable}}: the average of the weights, the box statistics.
        """
        self.model, self.optimizer = model, optimizer
        self.files = CheckpointFiles(os.path.join(model_dir, "checkpoints"), keep)
        self.best = CheckpointFiles(os.path.join(model_dir, BEST), 1)
        self.parts = {"model": {variable.path: variable.value for variable in model.variables}}
        if optimizer is not None:
            # Without the optimizer's own name, which Keras numbers within a process.
            self.parts["optimizer"] = {
                variable.path.split("/", 1)[-1]: variable.value for variable in optimizer.variables
            }
        if [len(part) for part in self.parts.values()] != [len(o.variables) for o in (model, optimizer) if o]:
            raise ValueError("two variables share a path, so a checkpoint would hold only one of them")
        self._optional = tuple(extra or {})
        self.parts |= extra or {}
        # Every variable is listed by its path. TensorFlow would otherwise find them by walking the attributes
        # of the layers, and in silence leave out those it does not see, such as layers in a list of lists.
        self.checkpoint = tf.train.Checkpoint(**self.parts)
        self.restored, self.missing_parts = None, ()
        self._best_score = None
        self._seen: tuple[Seen, int] | None = None

    def count_images(self, seen: Seen, batch_size: int) -> None:
        """Note with each checkpoint from now on how many images the run has seen: `batch_size` a step after `seen`."""
        self._seen = seen, batch_size

    @property
    def step(self) -> int:
        """Return the number of updates made."""
        return int(self.optimizer.iterations.numpy()) if self.optimizer else 0  # of one replica, where there are many

    @property
    def learning_rate(self) -> float:
        """Return the rate of the next update."""
        assert self.optimizer is not None, "only the model was given"
        return float(keras.ops.convert_to_numpy(self.optimizer.learning_rate))  # a constant one is a mirrored variable

    @property
    def nbytes(self) -> int:
        """Return about how large a checkpoint is."""
        return sum(
            variable.shape.num_elements() * variable.dtype.size
            for part in self.parts.values()
            for variable in part.values()
        )

    def save(self) -> str:
        """Write a checkpoint named by the step and return its path.

        A run that is killed meanwhile restarts from the one before.

        Raises:
          SaveError: it could not be written, and why; those before it are kept.
          NonFiniteLossError: a weight is not finite, so the checkpoint would not be a good one.
        """
        return self._write(self.files, {})

    def save_best(self, score: float) -> str | None:
        """Write the checkpoint into the folder of the best one if its score is higher than that one's.

        Returns:
          Its path, or None if it is not better.

        Raises:
          SaveError: it could not be written.
        """
        if self._best_score is None:
            try:
                saved = self.best.newest()
            except DamagedCheckpointError as error:
                log.warning("the best checkpoint is lost: %s", error)
                saved = None
            self._best_score = saved.values.get("score", float("-inf")) if saved else float("-inf")
        if score <= self._best_score:
            return None
        path = self._write(self.best, {"score": score})
        self._best_score = score
        return path

    def _write(self, files, values):
        for name, variable in self.parts["model"].items():
            if not np.isfinite(variable.numpy()).all():
                raise NonFiniteLossError(
                    f"step {self.step}: {name} is not finite though the loss still was. The training stops; the last "
                    "checkpoint is kept. A lower learning rate or a smaller clip_norm often cures it."
                )
        if self.optimizer is not None:
            values = {**values, "learning_rate": self.learning_rate}
        if self._seen is not None:
            seen, batch_size = self._seen
            values = {**values, NOTED: seen.images + (self.step - seen.step) * batch_size}
        return files.write(self.checkpoint, self.step, values)

    def restore(self, which: str | int = LAST) -> int | None:
        """Restore the newest checkpoint that is intact, or another.

        Args:
          which: "last", "best" by mask AP, or a step.

        Returns:
          Its step, or None if the directory holds none.

        Raises:
          DamagedCheckpointError: there are checkpoints, but none is intact.
          UserError: the checkpoint is of another architecture, or holds weights that are not finite; names them.
        """
        if which in (LAST, BEST):
            saved = (self.files if which == LAST else self.best).newest()
        else:
            saved = self.files.at(int(which))
        return None if saved is None else self.take(saved)

    def take(self, saved: SavedCheckpoint) -> int:
        """Restore a checkpoint, of this run or another, and return its step; see `restore`."""
        with reading(saved.path):
            shapes = tf.compat.v1.train.NewCheckpointReader(saved.path).get_variable_to_shape_map()
        self.missing_parts = tuple(
            part for part in self._optional if not any(name.startswith(f"{part}/") for name in shapes)
        )
        unfit = self._differences(shapes)
        if unfit:
            raise UserError(
                f"checkpoint {saved.path} does not fit the model that the configuration describes:\n"
                + listed(unfit)
                + "\nUse the configuration the run was started with, or another --model_dir to "
                "start anew, from these weights with --weights."
            )
        present = {part: variables for part, variables in self.parts.items() if part not in self.missing_parts}
        with reading(saved.path):
            tf.train.Checkpoint(**present).restore(saved.path).expect_partial()
        refuse_not_finite(saved.path, ((name, variable.numpy()) for name, variable in self.parts["model"].items()))
        self.restored = saved
        log.info("restored step %d from %s", saved.step, saved.path)
        return saved.step

    def _differences(self, shapes: dict) -> list[str]:
        """Return a line for each variable that the checkpoint lacks or holds in another shape."""
        lines = []
        for part, variables in self.parts.items():
            if part in self.missing_parts:
                continue
            for name, variable in variables.items():
                shape = shapes.get(variable_key(part, name))
                if shape is None:
                    lines.append(f"{name}: not in the checkpoint")
                elif list(shape) != variable.shape.as_list():
                    lines.append(f"{name}: {shape} in the checkpoint, {variable.shape.as_list()} in the model")
        return lines
