"""Score a trained model, or any COCO results file.

  python -m tpu_retinamask.evaluate --annotations=val.csv --model_dir=runs/mine
  python -m tpu_retinamask.evaluate --data_dir=cells --split=validation --model_dir=runs/mine
  python -m tpu_retinamask.evaluate --annotations=val.csv --model_dir=runs/mine --coco_json=instances_val.json
  python -m tpu_retinamask.evaluate --predictions=predictions.json --coco_json=instances_val.json

Prints box and mask average precision as COCO defines them, overall and by class, and writes metrics.json. --report
writes report.html beside it, with the pictures, the mistakes and the curves behind the figures, and thresholds.json,
the best threshold of each class, which predict and export take.
"""

import logging
import os
from collections.abc import Sequence
from typing import Literal, NamedTuple

import gin

from tpu_retinamask import config
from tpu_retinamask.coco.names import FileNames, unique_matches, with_names
from tpu_retinamask.coco.numbering import renumber_results
from tpu_retinamask.coco.scores import Scoring, score_coco
from tpu_retinamask.data.annotated_image import AnnotatedImage
from tpu_retinamask.data.annotations.class_names import ClassNames
from tpu_retinamask.data.sources.coco_entries import plain_path
from tpu_retinamask.data.sources.opening import open_images
from tpu_retinamask.errors import UserError, gin_param, printable
from tpu_retinamask.evaluation.report import Metrics, format_table
from tpu_retinamask.programs import score_files
from tpu_retinamask.programs.command_line import Flags
from tpu_retinamask.programs.held_out import of_split
from tpu_retinamask.programs.own_settings import checked
from tpu_retinamask.programs.runtime_choice import make_runtime
from tpu_retinamask.reports.crops import pixels_by_id
from tpu_retinamask.reports.evaluation_page import Evaluated, evaluation_page
from tpu_retinamask.tasks import inference

log = logging.getLogger(__name__)


class Evaluation(NamedTuple):
    """What was scored, and how well."""

    metrics: Metrics
    scoring: Scoring
    results: list[dict]  # of a model; empty where those of a file are scored
    classes: ClassNames | None  # likewise
    images: Sequence[AnnotatedImage]  # likewise


@gin.configurable
@checked(batch_size=(1, None), max_detections=(10, None))
def evaluate(
    flags: Flags,
    *,
    batch_size: int = 4,
    jit_compile: bool | None = None,
    on_bad_record: Literal["stop", "skip"] | None = None,
    max_detections: int | None = None,
) -> Evaluation:
    """Score a checkpoint on annotated images, or a results file.

    Args:
      flags: where images and model lie, or the results; all objects of the images count.
      batch_size: images run at once.
      jit_compile: compile detection as one XLA program; None: as the training did its step.
      on_bad_record: in place of that of `source`; None: that holds.
      max_detections: best detections that count, per image and class, at least the 10 of AR10; None: 100, or as many
        as a model gives.
    """
    if flags.predictions:
        metrics, scoring = score_coco(
            flags.coco_json, flags.predictions, iou_types=None, max_detections=max_detections or 100
        )
        return Evaluation(metrics, scoring, [], None, ())
    recipe, runtime = config.recipe(), make_runtime(flags)
    model, names = inference.load_model(
        flags.model_dir, config.RetinaMask, recipe.pipeline.largest_canvas, checkpoint=flags.checkpoint
    )
    classes, images = open_images(
        flags.annotations,
        flags.classes,
        flags.data_dir,
        flags.split,
        source_format=flags.format,
        known_classes=names,
        settings=config.reading(on_bad_record=on_bad_record),
        image_folder=flags.images,
    )
    if flags.annotations:
        images = of_split(images, flags.model_dir, flags.split)
    if classes.names != names.names:
        place = flags.data_dir or (
            f"--classes {flags.classes}" if flags.classes else f"--annotations {flags.annotations}"
        )
        raise UserError(
            f"{place} differs from the classes the model was trained "
            f"with ({os.path.join(flags.model_dir, inference.CLASSES_FILE)}): {list(names.names)}"
        )
    compiled = recipe.train.compiles_detection(jit_compile)
    detector = inference.make_detector(model, recipe.detection_filter, jit_compile=compiled, runtime=runtime)
    metrics, results, scoring = inference.evaluate_images(
        detector,
        recipe.pipeline,
        images,
        names,
        batch_size=batch_size,
        max_detections=max_detections or max(100, recipe.detection_filter.max_detections),
    )
    if flags.coco_json:
        results, truth = renumber_results(
            results, flags.coco_json, {image.image_id: image.name for image in images}, names.names
        )
        metrics, scoring = score_coco(truth, results, max_detections=metrics.max_detections)
    else:  # ids that count our images mean nothing elsewhere
        categories = {number: names.name_of(number) for number in range(names.num_classes)}
        results = with_names(results, {image.image_id: image.name for image in images}, categories)
    return Evaluation(metrics, scoring, results, names, images)


def run(flags: Flags) -> None:
    """Run the program."""
    if (flags.predictions and not flags.coco_json) or (flags.coco_json and not (flags.predictions or flags.model_dir)):
        raise UserError("--predictions and --coco_json go together: results, and the annotations that score them")
    if flags.predictions:
        _refuse_unread(flags)
        config.parse_gin(flags.gin_file, flags.gin_param)
        with score_files.held(flags.metrics or "metrics.json", report=flags.report) as files:
            found = evaluate(flags)
            print(printable(format_table(found.metrics)), flush=True)
            _write(files, flags, found, None)
    elif flags.data_dir and (flags.annotations or flags.classes):
        raise UserError("--data_dir holds images, annotations and classes: leave out --annotations and --classes")
    elif (flags.annotations or flags.data_dir) and flags.model_dir:
        config.parse_gin(
            flags.gin_file, flags.gin_param, model_dir=flags.model_dir, allow_imports=flags.allow_gin_imports
        )
        output = flags.metrics or os.path.join(flags.model_dir, "metrics.json")
        with score_files.held(output, model_dir=flags.model_dir, report=flags.report) as files:
            found = evaluate(flags)
            names = None if flags.coco_json or found.classes is None else found.classes.names
            # First: where nothing can be written it is not lost.
            print(printable(format_table(found.metrics, names)), flush=True)
            _write(files, flags, found, found.results)
    else:
        raise UserError(
            "give --annotations and --model_dir, or --data_dir and --model_dir, to score a model, "
            "or --predictions and --coco_json to score a results file"
        )


def _write(files: score_files.ScoreFiles, flags: Flags, found: Evaluation, results: list[dict] | None) -> None:
    report = None
    try:
        if flags.report:
            report = _report(flags, found)
    finally:  # the scores are not lost with a report that fails
        files.write(found.metrics, results, report)


def _report(flags: Flags, found: Evaluation) -> str:
    """Return the text of report.html."""
    images = found.images
    if flags.predictions and flags.images:
        reading = config.reading(on_bad_record="skip")
        _, images = open_images(flags.coco_json, None, None, settings=reading, image_folder=flags.images)
    by_key = {image.image_id: image for image in images}
    if flags.coco_json:  # whose numbering the scores have
        files = {key: image["file_name"] for key, image in found.scoring.truth.images.items() if "file_name" in image}
        keys, _ = unique_matches(FileNames(files), {key: plain_path(image.name) for key, image in by_key.items()})
        by_key = {keys[ours]: image for ours, image in by_key.items() if ours in keys}
    given = ("model_dir", "checkpoint", "annotations", "data_dir", "predictions", "coco_json")
    about = {name: str(flags[name].value) for name in given if flags[name].value}
    if flags.predictions:
        about.pop("checkpoint")
        if not flags.images:
            log.info("the report has no pictures: --images=FOLDER says where they lie")
    return evaluation_page(
        Evaluated(found.metrics, found.scoring, pixels_by_id(by_key), about), config.ReportSettings()
    )


def _refuse_unread(flags: Flags) -> None:
    """Refuse what the scoring of a results file would pass over.

    Raises:
      UserError: flags or settings of a model.
    """
    unread = [f"--{name}" for name in ("annotations", "classes", "data_dir", "model_dir") if flags[name].value]
    if unread:
        raise UserError(f"--predictions are scored without a model: leave out {' and '.join(unread)}")
    settings = [line.partition("=")[0].strip() for line in flags.gin_param]
    unread = [
        setting
        for setting in settings
        if not setting.endswith("evaluate.max_detections") and not (flags.report and setting.startswith("report."))
    ]
    if unread:
        asked = [line.partition("=")[2].strip() for line in flags.gin_param if "max_detections" in line]
        number = int(asked[0]) if asked and asked[0].isdecimal() and len(asked[0]) < 10 else 100
        raise UserError(
            f"{', '.join(unread)}: not read where --predictions are scored, for no model is run. What is read is "
            + gin_param("evaluate.max_detections", number)
        )
