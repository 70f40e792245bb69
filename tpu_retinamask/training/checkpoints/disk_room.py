"""Whether a model directory can be written and has room for the checkpoints to come, asked before training starts."""

import logging
import os
import shutil

import tensorflow as tf

from tpu_retinamask.errors import UserError
from tpu_retinamask.files import reason_of, temporary_name

log = logging.getLogger(__name__)


def require_room(model_dir: str, checkpoint_bytes: int, checkpoints: int = 1) -> None:
    """Write a file into a directory and, on a local disk, reserve a checkpoint's size for a moment.

    Args:
      model_dir: created where missing.
      checkpoint_bytes: of one checkpoint.
      checkpoints: how many will lie there at once; a lack of room for all of them is only warned of.

    Raises:
      UserError: the directory cannot be written, or a checkpoint does not fit.
    """
    probe = os.path.join(model_dir, temporary_name())
    try:
        tf.io.gfile.makedirs(model_dir)
        try:
            with tf.io.gfile.GFile(probe, "w") as file:
                file.write("x")
            if "://" not in model_dir:
                _reserve(probe, checkpoint_bytes)
        finally:
            if tf.io.gfile.exists(probe):
                tf.io.gfile.remove(probe)
    except (tf.errors.OpError, OSError) as error:
        raise UserError(
            f"--model_dir {model_dir} cannot take a checkpoint of {_megabytes(checkpoint_bytes)}: "
            f"{reason_of(error)}. Make room or choose another directory"
        ) from error
    if "://" not in model_dir:
        wanted = checkpoint_bytes * checkpoints - _written(model_dir)
        free = shutil.disk_usage(model_dir).free
        if free < wanted:
            log.warning(
                "%s has %s free, and the %d checkpoints that may lie there at once need %s more: make room, or "
                "lower train.keep_checkpoints",
                model_dir,
                _megabytes(free),
                checkpoints,
                _megabytes(wanted),
            )


def _reserve(path: str, size: int):
    """Take and give back `size` bytes: unlike a count of free bytes this knows of quotas."""
    if hasattr(os, "posix_fallocate"):
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, max(size, 1))
    elif shutil.disk_usage(os.path.dirname(path)).free < size:
        raise OSError("no space left on the device")


def _written(folder: str) -> int:
    """Return the bytes of all files in a folder and below."""
    return sum(os.path.getsize(os.path.join(parent, name)) for parent, _, names in os.walk(folder) for name in names)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
