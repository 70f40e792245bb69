"""The weights as a NumPy file, for whoever builds the network elsewhere."""

import dataclasses
import io
import json

import numpy as np
import tensorflow as tf

from tpu_retinamask.errors import UserError
from tpu_retinamask.exporters.registry import EXPORTERS, TrainedModel
from tpu_retinamask.files import write_atomically
from tpu_retinamask.version import __version__


@EXPORTERS.register("numpy")
def write_numpy(trained: TrainedModel, output: str) -> None:
    """Write every variable by its path, and `about`, JSON text of the classes, the canvas and the thresholds.

    Args:
      trained: what `inference.load_model` restored.
      output: a new file, PATH.npz.

    Raises:
      UserError: another suffix, a file that is there already or cannot be written, or another precision is wanted.
    """
    trained.settings.check_float32("numpy")
    if not output.endswith(".npz"):
        raise UserError(f"--output={output}: format numpy writes one file whose name ends in .npz")
    if tf.io.gfile.exists(output):
        raise UserError(f"--output={output} exists: give another name, or remove it")
    about = {
        "tpu_retinamask": __version__,
        "classes": list(trained.classes.names),
        "image_size": list(trained.pipeline.image_size),
        "detection_filter": dataclasses.asdict(trained.detection_filter),
    }
    arrays = {variable.path: np.asarray(variable.value) for variable in trained.model.variables}
    content = io.BytesIO()
    np.savez(content, **{"about": np.array(json.dumps(about)), **arrays}, allow_pickle=False)
    write_atomically(output, content.getvalue())
