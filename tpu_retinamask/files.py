"""What all that write files share: a file that is either whole or as it was, and the reason of a failure."""

import json
import os
import re
from typing import Any

import tensorflow as tf

from tpu_retinamask.errors import UserError


def write_json_atomically(path: str | os.PathLike, content: Any, indent: int | None = None) -> None:
    """Write JSON as `write_atomically` does."""
    write_atomically(path, json.dumps(content, allow_nan=False, indent=indent))


def write_atomically(path: str | os.PathLike, text: str) -> None:
    """Write text to a neighbouring temporary file, then rename it to `path` (local or gs://)."""
    path = os.fspath(path)
    folder = os.path.dirname(path)
    if folder:
        tf.io.gfile.makedirs(folder)
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with tf.io.gfile.GFile(temporary, "w") as file:
            file.write(text)
        tf.io.gfile.rename(temporary, path, overwrite=True)
    except BaseException:
        if tf.io.gfile.exists(temporary):
            tf.io.gfile.remove(temporary)
        raise


def reason_of(error: Exception) -> str:
    """Return what an error of the file system says, on one line."""
    text = (getattr(error, "message", None) or str(error) or type(error).__name__).splitlines()[0]
    return re.sub(r"^\{\{.*?\}\} ", "", text)  # the operation of TensorFlow's that met it


def read_bytes(path: str) -> bytes:
    """Read a whole file, local or gs://.

    Raises:
      FileNotFoundError: it does not exist.
      UserError: it cannot be read.
    """
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            return file.read()
    except tf.errors.NotFoundError as error:
        raise FileNotFoundError(f"{path}: no such file") from error
    except tf.errors.OpError as error:
        raise UserError(f"{path} cannot be read: {reason_of(error)}") from error
