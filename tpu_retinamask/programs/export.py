r"""Write a trained model in a form that others take.

  python -m tpu_retinamask.export --model_dir=runs/mine --output=mine.npz --format=numpy

Forms are added by name, from a file of your own as well: see docs/extending.md.
"""

import logging

from tpu_retinamask import config
from tpu_retinamask.exporters import numpy_file  # noqa: F401  # takes its seat
from tpu_retinamask.exporters.registry import EXPORTERS, TrainedModel
from tpu_retinamask.holding import held_file
from tpu_retinamask.programs.command_line import Flags
from tpu_retinamask.tasks import inference

log = logging.getLogger(__name__)


def run(flags: Flags) -> None:
    """Run the program."""
    config.parse_gin(flags.gin_file, flags.gin_param, model_dir=flags.model_dir, allow_imports=flags.allow_gin_imports)
    recipe = config.recipe()
    export = EXPORTERS.get(flags.format)
    with held_file(flags.output, "export", "--output"):
        model, classes = inference.load_model(
            flags.model_dir, config.RetinaMask, recipe.pipeline.image_size, checkpoint=flags.checkpoint
        )
        export(TrainedModel(model, recipe.detection_filter, recipe.pipeline, classes), flags.output)
    log.info("wrote %s (%s)", flags.output, flags.format)
