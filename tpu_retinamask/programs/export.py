r"""Write a trained model in a form that others take.

  python -m tpu_retinamask.export --model_dir=runs/mine --output=served/mine/1 --format=saved_model
  python -m tpu_retinamask.export --model_dir=runs/mine --output=mine_tflite --format=tflite \
      --gin_param="export.precision='float16'"
  python -m tpu_retinamask.export --model_dir=runs/mine --output=mine.npz --format=numpy

The forms are described in docs/export.md; more are added by name, from a file of your own as well: docs/extending.md.
"""

import dataclasses
import logging
from typing import Literal

import gin

from tpu_retinamask import config
from tpu_retinamask.evaluation.class_thresholds import read_thresholds
from tpu_retinamask.exporters import numpy_file, onnx_file, saved_model, stablehlo, tflite  # noqa: F401  # their seats
from tpu_retinamask.exporters.registry import EXPORTERS, ExportSettings, TrainedModel
from tpu_retinamask.holding import held_file
from tpu_retinamask.programs.command_line import Flags
from tpu_retinamask.programs.own_settings import checked
from tpu_retinamask.tasks import inference
from tpu_retinamask.training.checkpoints.files import digests

log = logging.getLogger(__name__)


@gin.configurable
@checked(batch_size=(1, None))
def export(
    model_dir: str,
    output: str,
    form: str,
    *,
    thresholds: str | None,
    checkpoint: str = "last",
    batch_size: int = 1,
    precision: Literal["float32", "float16"] = "float32",
) -> None:
    """Write a checkpoint in a form.

    Args:
      model_dir: written by train.
      output: a new file or folder.
      form: name of an exporter.
      thresholds: file of the least score of each class, or None.
      checkpoint: "last", "best" by mask AP, or a step.
      batch_size: pictures a call, of forms whose shapes are all fixed.
      precision: in which the weights are kept; float16 in tflite alone.
    """
    write, recipe = EXPORTERS.get(form), config.recipe()
    pipeline = recipe.pipeline.enclosing
    (canvas,) = pipeline.canvases
    restored = inference.restore_model(model_dir, config.RetinaMask, canvas, checkpoint=checkpoint)
    if len(recipe.pipeline.canvases) > 1:
        log.info(
            "the run has %d canvases, and what is exported has one, %d x %d", len(recipe.pipeline.canvases), *canvas
        )
    chosen = recipe.detection_filter
    if thresholds is not None:
        chosen = dataclasses.replace(chosen, class_thresholds=read_thresholds(thresholds, restored.classes))
    trained = TrainedModel(
        restored.model,
        chosen,
        pipeline,
        restored.classes,
        {"step": restored.checkpoint.step, "sha256": digests(restored.checkpoint)},
        ExportSettings(batch_size=batch_size, precision=precision),
    )
    write(trained, output)
    log.info("wrote %s (%s)", output, form)


def run(flags: Flags) -> None:
    """Run the program."""
    config.parse_gin(flags.gin_file, flags.gin_param, model_dir=flags.model_dir, allow_imports=flags.allow_gin_imports)
    with held_file(flags.output, "export", "--output"):
        export(flags.model_dir, flags.output, flags.format, thresholds=flags.thresholds, checkpoint=flags.checkpoint)
