"""Checkpoints: the weights, the optimizer and, in it, the step."""

import logging
import os

import tensorflow as tf

log = logging.getLogger("tpu_retinamask")


class TrainState:
    """The model and optimizer of a run, saved to and restored from its model directory."""

    def __init__(self, model_dir: str, model, optimizer=None, keep: int = 3):
        """Attach to a model directory.

        Args:
          model_dir: checkpoints lie in its folder `checkpoints`.
          model: RetinaMask with its weights created.
          optimizer: built Keras optimizer; None: only the model is restored.
          keep: newest checkpoints kept.
        """
        self.model, self.optimizer = model, optimizer
        self.directory = os.path.join(model_dir, "checkpoints")
        parts = {"model": model} if optimizer is None else {"model": model, "optimizer": optimizer}
        self.checkpoint = tf.train.Checkpoint(**parts)
        self.manager = tf.train.CheckpointManager(self.checkpoint, self.directory, max_to_keep=keep)

    @property
    def step(self) -> int:
        """Return the number of updates made."""
        return int(self.optimizer.iterations)

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
          ValueError: the checkpoint is of another architecture; names the first variable that differs.
        """
        path = self.manager.latest_checkpoint
        if path is None:
            return None
        try:
            status = self.checkpoint.restore(path)
            status.assert_existing_objects_matched()
        except (AssertionError, ValueError, tf.errors.OpError) as error:
            raise ValueError(
                f"checkpoint {path} does not fit the model that the configuration describes: {error}\n"
                "Use the configuration the run was started with, or another --model_dir to start anew.") from error
        if self.optimizer is None:
            status.expect_partial()
        step = int(path.rsplit("-", 1)[-1])
        log.info("restored step %d from %s", step, path)
        return step
