"""A file for ONNX Runtime and whatever else reads ONNX, made by tf2onnx."""

import json

import tensorflow as tf

from tpu_retinamask.errors import UserError
from tpu_retinamask.exporters.about import describe
from tpu_retinamask.exporters.fixed_shapes import OUTPUTS, detection, input_specs
from tpu_retinamask.exporters.new_output import check_new, write_form
from tpu_retinamask.exporters.registry import EXPORTERS, TrainedModel

OPSET = 18


@EXPORTERS.register("onnx")
def write_onnx(trained: TrainedModel, output: str) -> None:
    """Write a folder of model.onnx, about.json and run.py; see docs/export.md.

    Args:
      trained: what `inference.restore_model` restored.
      output: a new folder.

    Raises:
      UserError: tf2onnx is not installed, the output is there already or cannot be written, or another precision is
        wanted.
    """
    trained.settings.check_float32("onnx")
    try:
        import tf2onnx  # pyright: ignore[reportMissingImports]  # an extra
    except ImportError as error:
        raise UserError(
            "--format=onnx needs tf2onnx, which is not installed: pip install 'tpu-retinamask[onnx]'"
        ) from error
    check_new(output)
    specs = input_specs(trained)
    # By matrices: as quick as gathers in ONNX Runtime, and of fewer operations.
    function = tf.function(detection(trained, "gpu"), autograph=False, input_signature=specs)
    model, _ = tf2onnx.convert.from_function(function, input_signature=specs, opset=OPSET)
    about = describe(trained) | {
        "batch_size": trained.settings.batch_size,
        "opset": OPSET,
        "tf2onnx": tf2onnx.__version__,
        "outputs": list(OUTPUTS),
    }
    entry = model.metadata_props.add()
    entry.key, entry.value = "about", json.dumps(about)
    write_form(output, {"model.onnx": model.SerializeToString()}, about, "with_onnx")
