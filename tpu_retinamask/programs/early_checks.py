"""What is told before TensorFlow is imported, which takes seconds: files that are not there, settings that are none."""

import importlib.util
import os

from tpu_retinamask.errors import UserError
from tpu_retinamask.file_kinds import refuse_no_file
from tpu_retinamask.gin_files import refuse_unknown_settings
from tpu_retinamask.programs.command_line import Flags

# Flags that name what is read, of every program but those for which they may name what is written.
READ = {
    "annotations": (),
    "val_annotations": (),
    "classes": ("convert",),
    "instances": (),
}

SERVER = ("fastapi", "uvicorn", "python_multipart")  # of the extra


def check(program: str, flags: Flags) -> None:
    """Refuse what a look at the disk shows to be wrong; what is right here is looked at again where it is used.

    Args:
      program: its name.
      flags: of it.

    Raises:
      FileNotFoundError, UserError: in the words of those who would find it later.
    """
    if program == "serve":
        _refuse_missing_server()
    for name in flags:
        _refuse_bytes(name, getattr(flags, name))
    for name, spared in READ.items():
        path = getattr(flags, name, None)
        # A bucket is asked by TensorFlow alone; of a source, a part may be named: data.yaml#val.
        if not path or program in spared or "://" in path:
            continue
        if not (os.path.exists(path) or os.path.exists(path.rpartition("#")[0])):
            raise FileNotFoundError(f"{path}: no such file")
        if not os.path.isdir(path):
            refuse_no_file(path)
    if getattr(flags, "model_dir", None) == "":
        raise UserError("--model_dir is empty: give a folder")
    weights = getattr(flags, "weights", None)
    if weights and weights != "imagenet" and "://" not in weights:
        _refuse_missing_weights(weights)
    refuse_unknown_settings(getattr(flags, "gin_file", None) or [], getattr(flags, "gin_param", None) or [])


def _refuse_missing_server() -> None:
    missing = [name for name in SERVER if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"serve needs {', '.join(missing)}: pip install 'tpu_retinamask[serve]'")


def _refuse_bytes(name: str, value: object) -> None:
    for text in value if isinstance(value, list) else [value]:
        try:
            str(text).encode()
        except UnicodeEncodeError as error:  # TensorFlow takes names in UTF-8
            raise UserError(f"--{name}={text}: got bytes that are no text in UTF-8; rename what it names") from error


def _refuse_missing_weights(path: str) -> None:
    # A file, a model directory, or a checkpoint by its name without an ending.
    if not any(os.path.exists(path + ending) for ending in ("", ".index")):
        raise FileNotFoundError(
            f"--weights={path}: no such file; give a file, a directory written by train, or 'imagenet'"
        )
