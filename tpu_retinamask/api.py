"""The Python door: what `import tpu_retinamask` offers beside the classes."""

import contextlib
from collections.abc import Iterator, Sequence

import gin

from tpu_retinamask import config
from tpu_retinamask.data.sources.opening import open_sources
from tpu_retinamask.holding import held_folder
from tpu_retinamask.recipe import Recipe
from tpu_retinamask.tasks import inference, training
from tpu_retinamask.tasks.detector import Detector
from tpu_retinamask.tasks.start import Start
from tpu_retinamask.training.loop.progress import Progress
from tpu_retinamask.training.runtimes.tensorflow_runtime import TensorFlowRuntime


def read_recipe(*gin_files: str, settings: Sequence[str] = ()) -> Recipe:
    """Return what gin files describe.

    Args:
      *gin_files: paths, or names in the project's gin folder such as "recipe/small.gin"; later files win.
      settings: single ones, such as "train.epochs = 12"; they win over files.

    Raises:
      UserError: a file is missing, or a setting names something unknown or has a value that it cannot have.
    """
    with _own_configuration():
        config.parse_gin(gin_files, settings)
        return config.recipe()


def train(
    annotations: str | None = None,
    classes: str | None = None,
    *,
    model_dir: str,
    val_annotations: str | None = None,
    data_dir: str | None = None,
    source_format: str | None = None,
    image_folder: str | None = None,
    val_image_folder: str | None = None,
    recipe: Recipe | None = None,
    weights: str | None = None,
    skip_mismatched: bool = False,
) -> Progress:
    """Train a model, or go on training it, as the program `train` does.

    Args:
      annotations: where the training images are listed: a CSV, or what another source reads.
      classes: CSV of class names.
      model_dir: checkpoints, events, configuration and class names go here; a run that is there goes on.
      val_annotations: images to score, of the same kind.
      data_dir: written by prepare, in place of these three.
      source_format: kind of the annotations; None: recognised.
      image_folder: where the training images lie; None: where the annotations say.
      val_image_folder: where the images to score lie; None: as the training images.
      recipe: what is trained, and how; from `read_recipe`, or made of settings. None: the paper's.
      weights: where a new run starts; see `Start`.
      skip_mismatched: layers whose shapes differ from those of `weights` start anew.

    Returns:
      Progress, with the steps made.

    Raises:
      UserError: whatever the user gave that does not fit; see the program. HeldError: another process trains there.
    """
    recipe = config.with_earlier(recipe or Recipe(), model_dir)
    sources = open_sources(
        annotations,
        classes,
        val_annotations,
        data_dir,
        source_format=source_format,
        settings=recipe.source.overridden(on_bad_record=recipe.train.on_bad_record),
        image_folder=image_folder,
        val_image_folder=val_image_folder,
    )
    with held_folder(model_dir, "train", "model_dir"):
        prepared = training.prepare(
            recipe,
            sources,
            model_dir,
            TensorFlowRuntime(),
            start=Start(weights=weights, skip_mismatched=skip_mismatched),
            config_files=config.recipe_files(recipe),
        )
        return training.run(prepared)


def load(
    model_dir: str, *, checkpoint: str = "last", jit_compile: bool | None = None, allow_gin_imports: bool = False
) -> Detector:
    """Load a trained model.

    Args:
      model_dir: written by train.
      checkpoint: "last", "best" by mask AP, or a step.
      jit_compile: compile detection as one XLA program, at the first picture; None: as the training did its step.
      allow_gin_imports: run the Python files that the run's config.gin imports; see docs/security.md.

    Raises:
      UserError: the directory holds no such checkpoint, or none that is intact.
    """
    with _own_configuration():
        config.parse_gin([], [], model_dir=model_dir, allow_imports=allow_gin_imports)
        recipe = config.recipe()
        model, classes = inference.load_model(
            model_dir, config.RetinaMask, recipe.pipeline.largest_canvas, checkpoint=checkpoint
        )
    compiled = recipe.train.compiles_detection(jit_compile)
    return Detector(
        model, classes, recipe.pipeline, recipe.detection_filter, jit_compile=compiled, source=recipe.source
    )


@contextlib.contextmanager
def _own_configuration() -> Iterator[None]:
    """Leave gin without our settings, as a notebook that has none of its own had it."""
    try:
        yield
    finally:
        gin.clear_config()
