"""A file for the interpreter of LiteRT (TensorFlow Lite), of its own operations alone."""

import json
import os
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from tpu_retinamask.errors import UserError
from tpu_retinamask.exporters.about import describe
from tpu_retinamask.exporters.fixed_shapes import OUTPUTS, detection, input_specs
from tpu_retinamask.exporters.new_output import check_new, new_folder, write_file
from tpu_retinamask.exporters.registry import EXPORTERS, TrainedModel
from tpu_retinamask.exporters.runner_text import runner_text

# What is not computed in int8: all operations that the converter could quantise but convolutions.
_IN_FLOAT = """
ABS ADD ARG_MAX ARG_MIN AVERAGE_POOL_2D BATCH_MATMUL BROADCAST_TO CONCATENATION DIV EQUAL EXP FULLY_CONNECTED GATHER GATHER_ND
GREATER GREATER_EQUAL LESS LESS_EQUAL LOG LOGISTIC MAXIMUM MAX_POOL_2D MEAN MINIMUM MIRROR_PAD MUL NEG NOT_EQUAL PACK
PAD PADV2 REDUCE_MAX REDUCE_MIN RELU RELU6 RELU_N1_TO_1 RESHAPE RSQRT SELECT SELECT_V2 SLICE SOFTMAX SPLIT SPLIT_V SQRT SQUARED_DIFFERENCE
SQUEEZE STRIDED_SLICE SUB SUM TANH TILE TOPK_V2 TRANSPOSE UNPACK WHILE EXPAND_DIMS CAST
""".split()


@EXPORTERS.register("tflite")
def write_tflite(trained: TrainedModel, output: str) -> None:
    """Write a folder of model.tflite, about.json and run.py; see docs/export.md.

    Args:
      trained: what `inference.restore_model` restored; its settings say the precision.
      output: a new folder.

    Raises:
      UserError: the output is there already or cannot be written, or int8 is wanted without pictures.
    """
    check_new(output)
    settings = trained.settings
    if settings.precision == "int8" and not settings.calibration:
        raise UserError(
            "export.precision is 'int8', which takes pictures to find the range of each activation: give some like those "
            "that it will see, --calibration=FOLDER"
        )
    model = convert(trained)
    about = describe(trained) | {
        "batch_size": settings.batch_size,
        "precision": settings.precision,
        "calibration_pictures": len(settings.calibration),
        "outputs": list(OUTPUTS),
    }
    with new_folder(output) as folder:
        write_file(os.path.join(folder, "model.tflite"), model)
        write_file(os.path.join(folder, "about.json"), json.dumps(about, indent=1).encode())
        write_file(os.path.join(folder, "run.py"), runner_text("with_tflite"))


def convert(trained: TrainedModel) -> bytes:
    """Return the network with its selection as a flatbuffer, with the one signature serving_default."""
    precision = trained.settings.precision
    converter = _converter(trained)
    if precision == "float32":
        return converter.convert()
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
        return converter.convert()
    return _in_int8(trained, converter)


def _converter(trained: TrainedModel) -> tf.lite.TFLiteConverter:
    # By matrices: the operations of a gather of regions hold tensors of seven dimensions.
    module = tf.Module()
    module.detect = tf.function(detection(trained, "gpu"), autograph=False, input_signature=input_specs(trained))
    module.weights = [variable.value for variable in trained.model.variables]
    return tf.lite.TFLiteConverter.from_concrete_functions([module.detect.get_concrete_function()], module)


def _in_int8(trained: TrainedModel, converter: tf.lite.TFLiteConverter) -> bytes:
    """Return a flatbuffer that computes its convolutions in int8 and everything else in float32.

    A coordinate in 256 steps is off by pixels, and scores that are equal in 256 steps are in no order: so boxes,
    scores, selection and regions stay as they are.
    """
    images = trained.settings.calibration

    def batches() -> Iterator[list[np.ndarray]]:
        for batch in trained.pipeline.eval_dataset(images, trained.settings.batch_size):
            yield [batch.image.numpy(), batch.content_size.numpy()]

    converter.representative_dataset = batches
    options = tf.lite.experimental.QuantizationDebugOptions(denylisted_ops=_IN_FLOAT)
    debugger = tf.lite.experimental.QuantizationDebugger(
        converter=converter, debug_dataset=batches, debug_options=options
    )
    return bytes(debugger.get_nondebug_quantized_model())
