"""What the graph of an input raises, as an error that says why a batch could not be made."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

import tensorflow as tf

from tpu_retinamask.errors import UserError

GONE = (tf.errors.UnavailableError, tf.errors.AbortedError)  # the devices or the service, not a batch


class BatchError(UserError):
    """The input could not make a batch; says why."""


def take_batch(iterator: Iterator) -> Any:
    """Return the next batch of an iterator.

    Raises:
      BatchError: it could not be made.
    """
    try:
        return next(iterator)
    except GONE:
        raise
    except tf.errors.OpError as error:
        raise batch_error(error) from error


def each_batch(dataset: Iterable) -> Iterator[Any]:
    """Yield the batches of a dataset.

    Raises:
      BatchError: one could not be made.
    """
    batches = iter(dataset)
    while True:
        try:
            batch = take_batch(batches)
        except StopIteration:
            return
        yield batch


def batch_error(error: tf.errors.OpError) -> BatchError:
    """Return the error of an input, without the iterators and graphs through which TensorFlow tells it."""
    several = re.search(r"^\s*\(0\) [A-Z_]+:\s*(.+)$", error.message, re.MULTILINE)  # replicas, each with its own
    lines = [line for line in error.message.splitlines() if line and not line.startswith("\t")]
    last = several[1] if several else lines[-1] if lines else str(error)
    reason = re.sub(r"^.*Iterator::\S*: ", "", last)
    if re.search("(corrupted|truncated) record at", reason):  # TensorFlow tells the byte, and not the file
        reason += "; `prepare --data_dir=DATA_DIR --verify` names the damaged file"
    return BatchError(f"a batch could not be made: {reason}")
