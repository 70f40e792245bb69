"""A file for the interpreter of LiteRT (TensorFlow Lite), of its own operations alone."""

import tensorflow as tf

from tpu_retinamask.exporters.about import describe
from tpu_retinamask.exporters.fixed_shapes import OUTPUTS, detection, input_specs
from tpu_retinamask.exporters.new_output import check_new, write_form
from tpu_retinamask.exporters.registry import EXPORTERS, TrainedModel


@EXPORTERS.register("tflite")
def write_tflite(trained: TrainedModel, output: str) -> None:
    """Write a folder of model.tflite, about.json and run.py; see docs/export.md.

    Args:
      trained: what `inference.restore_model` restored; its settings say the precision.
      output: a new folder.

    Raises:
      UserError: the output is there already or cannot be written.
    """
    check_new(output)
    settings = trained.settings
    model = convert(trained)
    about = describe(trained) | {
        "batch_size": settings.batch_size,
        "precision": settings.precision,
        "outputs": list(OUTPUTS),
    }
    write_form(output, {"model.tflite": model}, about, "with_tflite")


def convert(trained: TrainedModel) -> bytes:
    """Return the network with its selection as a flatbuffer, with the one signature serving_default."""
    # By matrices: the operations of a gather of regions hold tensors of seven dimensions.
    module = tf.Module()
    module.detect = tf.function(detection(trained, "gpu"), autograph=False, input_signature=input_specs(trained))
    module.weights = [variable.value for variable in trained.model.variables]
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.detect.get_concrete_function()], module)
    if trained.settings.precision == "float16":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
    return converter.convert()
