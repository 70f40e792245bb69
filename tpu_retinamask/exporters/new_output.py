"""Outputs that are whole or absent, and never in the place of something that was there."""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf

from tpu_retinamask.errors import UserError
from tpu_retinamask.exporters.runner_text import runner_text
from tpu_retinamask.files import WriteError, check_folder, force, reason_of, temporary_name


def check_new(output: str) -> None:
    """Refuse an output that exists, or a place that cannot be written.

    Raises:
      UserError: says which.
    """
    if tf.io.gfile.exists(output) or os.path.lexists(output):
        raise UserError(f"--output={output} exists: give another name, or remove it")
    check_folder(os.path.dirname(output.rstrip("/")) or ".")


@contextlib.contextmanager
def new_folder(output: str) -> Iterator[str]:
    """Give an empty folder beside the output, which takes the output's name when the block ends well.

    Raises:
      UserError: the output exists, or cannot be written.
    """
    check_new(output)
    output = output.rstrip("/")
    partial = os.path.join(os.path.dirname(output), temporary_name())
    try:
        tf.io.gfile.makedirs(partial)
        yield partial
        for parent, _, names in os.walk(partial):
            for name in names:
                force(os.path.join(parent, name))
        tf.io.gfile.rename(partial, output)
    except (tf.errors.OpError, OSError) as error:
        raise WriteError(f"--output={output} could not be written: {reason_of(error)}") from error
    finally:
        with contextlib.suppress(tf.errors.OpError):
            if tf.io.gfile.exists(partial):
                tf.io.gfile.rmtree(partial)


def write_form(output: str, programs: Mapping[str, bytes], about: Mapping[str, Any], runner: str) -> None:
    """Write a form of one canvas: a folder of its programs, `about.json`, and `run.py`.

    Args:
      output: a new folder.
      programs: content by the name of its file.
      about: what the form says of itself.
      runner: name of the module in `runners` that runs it.

    Raises:
      UserError: as `new_folder` does.
    """
    files = {**programs, "about.json": json.dumps(about, indent=1).encode(), "run.py": runner_text(runner)}
    with new_folder(output) as folder:
        for name, content in files.items():
            write_file(os.path.join(folder, name), content)


def write_file(path: str, content: bytes) -> None:
    """Write a file of a folder that `new_folder` gave."""
    with tf.io.gfile.GFile(path, "wb") as file:
        file.write(content)
