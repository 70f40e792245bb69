"""Checkpoints: the weights, the optimizer and, in it, the step."""

import logging
import os

import tensorflow as tf

from tpu_retinamask.errors import UserError

log = logging.getLogger("tpu_retinamask")


class TrainState:
    """The model and optimizer of a run, saved to and restored from its model directory."""

    def __init__(self, model_dir: str, model, optimizer=None, keep: int = 3, extra: dict | None = None):
        """Attach to a model directory.

        Args:
          model_dir: checkpoints lie in its folder `checkpoints`.
          model: RetinaMask with its weights created.
          optimizer: built Keras optimizer; None: only the model is restored.
          keep: newest checkpoints kept.
          extra: further parts, {name: {name: tf.Variable}}: the average of the weights, the box statistics.
        """
        self.model, self.optimizer = model, optimizer
        self.directory = os.path.join(model_dir, "checkpoints")
        self.parts = {"model": {variable.path: variable.value for variable in model.variables}}
        if optimizer is not None:
            # Without the optimizer's own name, which Keras numbers within a process.
            self.parts["optimizer"] = {variable.path.split("/", 1)[-1]: variable.value
                                       for variable in optimizer.variables}
        if [len(part) for part in self.parts.values()] != [len(o.variables) for o in (model, optimizer) if o is not None]:
            raise ValueError("two variables share a path, so a checkpoint would hold only one of them")
        self.parts |= extra or {}
        # Every variable is listed by its path. TensorFlow would otherwise find them by walking the attributes
        # of the layers, and in silence leave out those it does not see, such as layers in a list of lists.
        self.checkpoint = tf.train.Checkpoint(**self.parts)
        self.manager = tf.train.CheckpointManager(self.checkpoint, self.directory, max_to_keep=keep)

    @property
    def step(self) -> int:
        """Return the number of updates made."""
        return int(self.optimizer.iterations.numpy())  # of one replica, where there are many

    def save(self) -> str:
        """Write a checkpoint named by the step and return its path.

        TensorFlow writes to temporary names and moves them into place, and the pointer file that names
        the newest checkpoint is replaced last: a run killed while saving still restarts from the one before.
        """
        return self.manager.save(checkpoint_number=self.step)

    def restore(self) -> int | None:
        """Restore the newest checkpoint.

        Returns:
          Its step, or None if the directory holds none.

        Raises:
          UserError: the checkpoint is of another architecture; names the first variable that differs.
        """
        path = self.manager.latest_checkpoint
        if path is None:
            return None
        unfit = self._differences(path)
        if unfit:
            raise UserError(
                f"checkpoint {path} does not fit the model that the configuration describes:\n  " + "\n  ".join(unfit)
                + "\nUse the configuration the run was started with, or another --model_dir to start anew.")
        self.checkpoint.restore(path).expect_partial()
        step = int(path.rsplit("-", 1)[-1])
        log.info("restored step %d from %s", step, path)
        return step

    def _differences(self, path: str, most: int = 20) -> list:
        """Return a line for each variable that the checkpoint lacks or holds in another shape."""
        saved = tf.train.load_checkpoint(path).get_variable_to_shape_map()
        lines = []
        for part, variables in self.parts.items():
            for name, variable in variables.items():
                escaped = name.replace(".", "..").replace("/", ".S")  # as TensorFlow writes a key of a dict
                shape = saved.get(f"{part}/{escaped}/.ATTRIBUTES/VARIABLE_VALUE")
                if shape is None:
                    lines.append(f"{name}: not in the checkpoint")
                elif list(shape) != variable.shape.as_list():
                    lines.append(f"{name}: {shape} in the checkpoint, {variable.shape.as_list()} in the model")
        return lines[:most] + ([f"and {len(lines) - most} more"] if len(lines) > most else [])
