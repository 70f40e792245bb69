"""A trained model at work: restore it from its directory, run it over images, score it."""

import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import tensorflow as tf

from tpu_retinamask.batch_errors import each_batch
from tpu_retinamask.coco.scores import Scoring, score_coco
from tpu_retinamask.coco.writing import coco_from_images
from tpu_retinamask.data.annotated_image import AnnotatedImage
from tpu_retinamask.data.annotations.class_names import ClassNames, read_classes
from tpu_retinamask.data.sources.settings import SourceSettings
from tpu_retinamask.data.stream.canvases import scored_parts
from tpu_retinamask.data.stream.pipeline import InputPipeline
from tpu_retinamask.errors import UserError
from tpu_retinamask.evaluation.report import Metrics
from tpu_retinamask.evaluation.results import detections_to_results
from tpu_retinamask.files import write_atomically
from tpu_retinamask.model.postprocess import DetectionFilter, detect
from tpu_retinamask.model.retinamask import RetinaMask
from tpu_retinamask.structures import Batch, Detections
from tpu_retinamask.training.checkpoints.files import SavedCheckpoint
from tpu_retinamask.training.checkpoints.state import BEST, LAST, TrainState
from tpu_retinamask.training.runtimes.registry import Runtime
from tpu_retinamask.training.runtimes.tensorflow_runtime import TensorFlowRuntime
from tpu_retinamask.training.weight_average import load_average

log = logging.getLogger(__name__)

CLASSES_FILE = "classes.csv"


def write_classes(model_dir: str, classes: ClassNames) -> None:
    """Write the class names into the model directory.

    Raises:
      UserError: the directory belongs to a run with other classes.
    """
    path = os.path.join(model_dir, CLASSES_FILE)
    if not tf.io.gfile.exists(path):
        write_atomically(path, classes.to_csv())
    elif read_classes(path).names != classes.names:
        raise UserError(
            f"{path} holds the classes {list(read_classes(path).names)} of the run that was started "
            f"there, but now they are {list(classes.names)}: choose another --model_dir"
        )


def load_model(
    model_dir: str,
    build_model: Callable[[int], RetinaMask],
    image_size: tuple[int, int],
    *,
    averaged: bool = True,
    checkpoint: str = LAST,
) -> tuple[RetinaMask, ClassNames]:
    """Return the trained model of a directory and its class names; see `restore_model`."""
    restored = restore_model(model_dir, build_model, image_size, averaged=averaged, checkpoint=checkpoint)
    return restored.model, restored.classes


class RestoredModel(NamedTuple):
    """A trained model, and where its weights came from."""

    model: RetinaMask
    classes: ClassNames
    checkpoint: SavedCheckpoint


def restore_model(
    model_dir: str,
    build_model: Callable[[int], RetinaMask],
    image_size: tuple[int, int],
    *,
    averaged: bool = True,
    checkpoint: str = LAST,
) -> RestoredModel:
    """Restore the trained model of a directory.

    Args:
      model_dir: written by train.
      build_model: `num_classes -> RetinaMask`.
      image_size: (H, W) of the canvas.
      averaged: take the average of the weights, where the run kept one, instead of the last weights.
      checkpoint: "last", "best" by mask AP, or a step.

    Raises:
      UserError: the directory holds no such checkpoint, or none that is intact.
    """
    if checkpoint not in (LAST, BEST) and not re.fullmatch("[0-9]{1,18}", checkpoint):
        raise UserError(f"--checkpoint={checkpoint}: expected {LAST}, {BEST} or the number of a step")
    classes = read_classes(os.path.join(model_dir, CLASSES_FILE))
    model = build_model(classes.num_classes).create_weights(image_size)
    state = TrainState(model_dir, model)
    state.restore(checkpoint)
    if state.restored is None:
        raise UserError(
            f"{model_dir} holds no checkpoint yet: let train run until it has saved one"
            if checkpoint == LAST
            else f"{model_dir} holds no best checkpoint: train scores its images, "
            "and keeps the best weights, where it is given --val_annotations"
        )
    if averaged and load_average(model, state.restored.path):
        log.info("the weights are the average that the training kept (train.average_decay)")
    return RestoredModel(model, classes, state.restored)


def orientation_of_new_pictures(source: SourceSettings) -> str:
    """Return what is done with pictures without annotations that lie on their side: as the run did, else "apply".

    A run that refused such pictures did so because of their boxes, which may be meant in one frame or the other; here
    there are none yet.
    """
    return "apply" if source.exif_orientation == "refuse" else source.exif_orientation


def make_detector(
    model: RetinaMask, detection_filter: DetectionFilter, *, jit_compile: bool = True, runtime: Runtime | None = None
) -> Callable[[Batch], Detections]:
    """Return `Batch -> Detections`, compiled as one program.

    Args:
      model: with its weights.
      detection_filter: how detections are chosen.
      jit_compile: compile detection as one XLA program, where the runtime can.
      runtime: executes it, each replica its share of the batch; None: TensorFlow on one device.
    """

    def run(images: tf.Tensor, content_size: tf.Tensor) -> Detections:
        return detect(model, detection_filter, images, content_size)

    return (runtime or TensorFlowRuntime()).detector(run, jit_compile=jit_compile)


def detect_all(
    detector: Callable[[Batch], Detections], dataset: Iterable[Batch], category_ids: Sequence[int]
) -> Iterator[tuple[int, list[dict]]]:
    """Yield each image's id, its Batch row, and its detections in COCO results form.

    Args:
      detector: `Batch -> Detections`.
      dataset: of Batch; padding images (image_id -1) are passed over.
      category_ids: category id of each class id.

    Yields:
      (image_id, list of results) one an image.
    """
    cut = 0
    for batch in each_batch(dataset):
        found = detector(batch)
        cut += int(tf.reduce_sum(found.cut))
        batch = Batch(*[part.numpy() for part in batch])
        found = type(found)(*[part.numpy() for part in found])
        for row, image_id in enumerate(batch.image_id):
            if image_id >= 0:
                one = type(found)(*[part[row : row + 1] for part in found])
                yield (
                    int(image_id),
                    detections_to_results(
                        one,
                        batch.image_id[row : row + 1],
                        batch.image_scale[row : row + 1],
                        batch.original_size[row : row + 1],
                        category_ids,
                    ),
                )
    if cut:
        log.info(
            "%d candidates above the score threshold were left out before suppression; "
            "DetectionFilter.top_k_per_level sets how many are kept",
            cut,
        )


def evaluate_images(
    detector: Callable[[Batch], Detections],
    pipeline: InputPipeline,
    images: Sequence[AnnotatedImage],
    classes: ClassNames,
    *,
    batch_size: int,
    max_detections: int,
) -> tuple[Metrics, list[dict], Scoring]:
    """Score a detector on annotated images.

    Args:
      detector: from `make_detector`.
      pipeline: fits each image to the canvas.
      images: as a source was opened; all their instances count, beyond `pipeline.max_instances` too.
      classes: their names.
      batch_size: images run at once.
      max_detections: the K of average precision and recall.

    Returns:
      (Metrics, results, Scoring): see `coco.scores`; category ids are class ids.
    """
    category_ids = list(range(classes.num_classes))
    results = []
    for part in scored_parts(pipeline, images):
        for _, of_image in detect_all(detector, part.pipeline.eval_dataset(part.images, batch_size), category_ids):
            results.extend(of_image)
    metrics, scoring = score_coco(coco_from_images(images, classes), results, max_detections=max_detections)
    return metrics, results, scoring
