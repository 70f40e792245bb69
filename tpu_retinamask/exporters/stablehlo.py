"""The network with its selection as StableHLO, by itself and as jax.export reads it, its weights beside it."""

import io
from typing import Any

import numpy as np
import tensorflow as tf

from tpu_retinamask.errors import UserError
from tpu_retinamask.exporters.about import describe
from tpu_retinamask.exporters.fixed_shapes import OUTPUTS, detection, input_specs
from tpu_retinamask.exporters.new_output import check_new, write_form
from tpu_retinamask.exporters.registry import EXPORTERS, TrainedModel
from tpu_retinamask.xla.purify import pure_function


@EXPORTERS.register("stablehlo")
def write_stablehlo(trained: TrainedModel, output: str) -> None:
    """Write a folder of program.stablehlo, program.jax, weights.npz, about.json and run.py; see docs/export.md.

    Args:
      trained: what `inference.restore_model` restored.
      output: a new folder.

    Raises:
      UserError: jax is not installed, the output is there already or cannot be written, or another precision is wanted.
    """
    trained.settings.check_float32("stablehlo")
    try:
        import jax
        from jax.experimental import jax2tf
    except ImportError as error:
        raise UserError(
            "--format=stablehlo needs jax, which is not installed: pip install 'tpu-retinamask[pjrt]'"
        ) from error
    check_new(output)
    specs = input_specs(trained)
    # Lowered for every kind of device: the regions are read by matrices, which none is slow at.
    traced = tf.function(detection(trained, "gpu"), autograph=False).get_concrete_function(*specs)
    pure = pure_function(traced)
    names = [f"weight_{number:03d}" for number in range(len(pure.variables))]
    weights = [
        tf.raw_ops.ReadVariableOp(resource=handle, dtype=spec.dtype).numpy()
        for handle, spec in zip(pure.variables, pure.state)
    ]

    def outputs(*values):
        flat = pure.function(*values)[: pure.num_outputs]
        found = tf.nest.pack_sequence_as(traced.structured_outputs, flat)
        return [found[name] for name in OUTPUTS]

    lowered = jax2tf.call_tf(outputs, has_side_effects=False)

    def run(image, content_size, weights):
        return dict(zip(OUTPUTS, lowered(image, content_size, *weights)))

    exported = jax.export.export(
        jax.jit(run, keep_unused=True), disabled_checks=[jax.export.DisabledSafetyCheck.platform()]
    )(*map(_shape, specs), [_shape(spec) for spec in pure.state])
    about = describe(trained) | {
        "batch_size": trained.settings.batch_size,
        "jax": jax.__version__,
        "inputs": {spec.name: [spec.dtype.name, list(spec.shape)] for spec in specs},
        "outputs": list(OUTPUTS),
        "weights": names,
    }
    content = io.BytesIO()
    np.savez(content, **dict(zip(names, weights)), allow_pickle=False)
    programs = {
        "program.stablehlo": exported.mlir_module_serialized,
        "program.jax": bytes(exported.serialize()),
        "weights.npz": content.getvalue(),
    }
    write_form(output, programs, about, "with_jax")


def _shape(spec: tf.TensorSpec) -> Any:
    import jax

    return jax.ShapeDtypeStruct(tuple(spec.shape), spec.dtype.as_numpy_dtype)
