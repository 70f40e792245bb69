"""What is wrong with a source of weights, and how the readers of files tell of it."""

import contextlib
import struct
import zipfile
from collections.abc import Iterator

from tpu_retinamask.errors import UserError

# What a zip, a pickle, HDF5 or a number that was cut or changed makes the readers of Python and of h5py raise.
FAULTS = (
    zipfile.BadZipFile,
    struct.error,
    ArithmeticError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


class WeightsError(UserError):
    """A source of weights that does not fit the model, or is no source of weights."""


@contextlib.contextmanager
def told_of(path: str, kind: str, remedy: str) -> Iterator[None]:
    """Say of which file, and what to do, where reading it in the block meets something else than weights.

    Args:
      path: of the file.
      kind: of weights that were expected, such as "weights of PyTorch".
      remedy: what to do.

    Raises:
      WeightsError: of whatever the block raises of FAULTS.
    """
    try:
        yield
    except WeightsError as error:
        raise WeightsError(f"{path} as {kind}: found {error}; {remedy}") from error
    except FAULTS as error:
        raise WeightsError(
            f"{path} as {kind}: found a file that is cut, damaged or of another kind "
            f"({type(error).__name__}: {error}), expected {kind}; {remedy}"
        ) from error
