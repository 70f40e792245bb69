"""Weights in the checkpoints that a training of ours wrote."""

import os
import re

import tensorflow as tf

from tpu_retinamask.files import reason_of
from tpu_retinamask.pretrained.faults import WeightsError
from tpu_retinamask.training.checkpoints.files import CheckpointFiles, SavedCheckpoint
from tpu_retinamask.training.checkpoints.keys import variable_of


def find_checkpoint(source: str) -> SavedCheckpoint | None:
    """Return the newest intact checkpoint of a directory written by train, or the one named; None: `source` is a file.

    Raises:
      FileNotFoundError: a directory without a checkpoint.
      DamagedCheckpointError: the one named is damaged, or all of a directory.
    """
    if tf.io.gfile.exists(f"{source}.index"):
        directory, name = os.path.split(source)
        step = int(name.rsplit("-", 1)[-1]) if re.fullmatch(r"ckpt-\d+", name) else None
        files = CheckpointFiles(directory)
        return SavedCheckpoint(source, 0, {}) if step is None or not files.holds(step) else files.at(step)
    if not tf.io.gfile.isdir(source):
        return None
    newest = CheckpointFiles(os.path.join(source, "checkpoints")).newest() or CheckpointFiles(source).newest()
    if newest is None:
        raise FileNotFoundError(f"{source} holds no checkpoint, neither directly nor in its folder `checkpoints`")
    return newest


def read_checkpoint(path: str) -> tuple[dict, bool]:
    """Return the model's weights `{layer: {weight: array}}` of a checkpoint of ours, and whether they are averages.

    Raises:
      WeightsError: it is a checkpoint of something else, or damaged.
    """
    layers, averaged = {}, False
    try:
        reader = tf.train.load_checkpoint(path)
        for key in sorted(reader.get_variable_to_shape_map(), reverse=True):  # the averages, over the weights, last
            part, name = variable_of(key) or (None, "")
            if part in ("model", "average") and "/" in name:
                layer, weight = name.split("/")[-2:]
                layers.setdefault(layer, {})[weight] = reader.get_tensor(key)
                averaged |= part == "average"
    except (tf.errors.OpError, RuntimeError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read: {reason_of(error)}") from error
    if not layers:
        raise WeightsError(f"{path} was not written by train: it holds no variables of a model by their paths")
    return layers, averaged
