"""How the numbers of a checkpoint are read: what cannot be is told by name, and none is taken that is not finite."""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from tpu_retinamask.errors import UserError, listed
from tpu_retinamask.files import reason_of


@contextlib.contextmanager
def reading(checkpoint: str) -> Iterator[None]:
    """Tell of a checkpoint what TensorFlow cannot read in it, whatever its manifest says.

    Raises:
      UserError: as it is told.
    """
    try:
        yield
    except UserError:
        raise
    except (tf.errors.OpError, RuntimeError, ValueError, TypeError) as error:
        raise UserError(f"checkpoint {checkpoint} cannot be read: {reason_of(error)}") from error


def refuse_not_finite(checkpoint: str, weights: Iterable[tuple[str, Any]]) -> None:
    """Refuse weights that hold NaN or an infinite number: a save refuses them, so another program wrote them.

    Args:
      checkpoint: path of the checkpoint that they were read from.
      weights: (name, array of numbers).

    Raises:
      UserError: names those that do.
    """
    wrong = []
    for name, value in weights:
        finite = np.isfinite(value)
        if not finite.all():
            wrong.append(f"{name}: {finite.size - np.count_nonzero(finite)} of {finite.size} numbers")
    if wrong:
        raise UserError(
            f"checkpoint {checkpoint} holds weights that are NaN or infinite, with which nothing is found:\n"
            + listed(wrong)
            + "\nTake another, by --checkpoint or --weights, or remove its files to go on from the one before."
        )
