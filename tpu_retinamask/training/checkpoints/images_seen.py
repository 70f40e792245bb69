"""How many images a run has been shown: its place in the epochs, whatever its batches were."""

import os
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import tensorflow as tf

from tpu_retinamask.files import read_bytes

NOTED = "images"  # with each checkpoint
MOST_IMAGES = 1 << 62  # the numbers of samples are of 64 bits
_BATCH = re.compile(r"^train\.batch_size = ([0-9]{1,9})$", re.MULTILINE)
_OF_REPLICAS = re.compile(r"^train\.images_per_replica = \d+$", re.MULTILINE)


class Seen(NamedTuple):
    """Where a run stands."""

    step: int  # updates made
    images: int  # shown in them, those of all epochs; the next sample has this number
    known: bool = True  # False: nothing tells, and batches are taken to have been as they are now


def images_seen(step: int, values: Mapping, batch_size: int, configs: Iterable[str] = ()) -> Seen:
    """Return where a checkpoint stands.

    Args:
      step: of the checkpoint.
      values: noted with it; those of before images were counted have none.
      batch_size: images a step from now on.
      configs: paths of what the run wrote down of its settings; the first that tells the batch is taken for a
        checkpoint that tells no images.
    """
    if 0 <= values.get(NOTED, -1) < MOST_IMAGES:
        return Seen(step, int(values[NOTED]))
    batch = next(filter(None, map(_batch_in, configs)), None)
    return Seen(step, step * (batch or batch_size), known=batch is not None or not step)


def _batch_in(path: str) -> int | None:
    if not tf.io.gfile.exists(path):
        return None
    text = read_bytes(path).decode("utf-8", "replace")
    found = _BATCH.search(text)
    return int(found[1]) if found and not _OF_REPLICAS.search(text) else None


def configs_in(model_dir: str, names: Iterable[str]) -> list[str]:
    """Return the paths of what a run wrote down, that with all defaults first."""
    return [os.path.join(model_dir, name) for name in sorted(names, reverse=True)]
