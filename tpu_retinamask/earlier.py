"""Settings younger than some runs: a run goes on, and is used, with what the code did before they were there."""

import logging
import os
import re
from typing import Any

import tensorflow as tf

from tpu_retinamask.files import read_bytes

log = logging.getLogger(__name__)

# Setting, by gin's name, and what a run had that was started before there was such a setting.
EARLIER: dict[str, Any] = {
    "RetinaMask.padding": "same",
    "RetinaMask.mask_padding": False,
    "InputPipeline.antialias": False,
    "Criterion.best_match_ties": "all",
    "Criterion.mask_average": "images",
    "make_optimizer.rate_in_momentum": True,
}


def earlier_settings(model_dir: str, operative_file: str) -> dict[str, Any]:
    """Return what a run had in place of settings that it does not know; it says so. Empty: no run, or one of today.

    Args:
      model_dir: of the run.
      operative_file: name of the file in it that lists all settings in force.

    Raises:
      UserError: the file cannot be read.
    """
    path = os.path.join(model_dir, operative_file)
    if not tf.io.gfile.exists(path):
        return {}
    known = set(re.findall(r"^([\w./]+) =", read_bytes(path).decode("utf-8", "replace"), re.MULTILINE))
    found = {name: value for name, value in EARLIER.items() if name not in known}
    if found:
        log.info(
            "%s was started before there were the settings %s; it keeps what it was trained with: %s",
            model_dir,
            ", ".join(found),
            ", ".join(f"{name} = {value!r}" for name, value in found.items()),
        )
    return found
