"""Score a trained model, or any COCO results file.

  python -m tpu_retinamask.evaluate --annotations=val.csv --model_dir=runs/mine
  python -m tpu_retinamask.evaluate --data_dir=cells --split=validation --model_dir=runs/mine
  python -m tpu_retinamask.evaluate --annotations=val.csv --model_dir=runs/mine --coco_json=instances_val.json
  python -m tpu_retinamask.evaluate --predictions=predictions.json --coco_json=instances_val.json

Prints box and mask average precision as COCO defines them, overall and by class, and writes metrics.json.
"""

import os

from absl import flags

import gin
from tpu_retinamask import (
    config,  # first: it quiets TensorFlow's start-up
    inference,
)
from tpu_retinamask.coco.numbering import renumber_results
from tpu_retinamask.coco.scores import evaluate_coco
from tpu_retinamask.data.annotations.class_names import read_classes
from tpu_retinamask.data.annotations.csv_annotations import read_annotations
from tpu_retinamask.data.annotations.scan import scan_records
from tpu_retinamask.data.prepared.reading import open_records
from tpu_retinamask.evaluation.report import format_table, write_metrics
from tpu_retinamask.evaluation.results import write_results

FLAGS = flags.FLAGS


@gin.configurable
def evaluate(
    annotations: str | None,
    classes: str | None,
    model_dir: str,
    *,
    data_dir: str | None = None,
    split: str = "validation",
    coco_json: str | None = None,
    checkpoint: str = "last",
    batch_size: int = 4,
    jit_compile: bool = True,
    on_bad_record: str = "stop",
):
    """Return the Metrics, the results and the class names of a checkpoint on annotated images.

    Args:
      annotations: CSV of the images to score; all its objects count.
      classes: CSV of class names, to be compared with the run's own; None: the run's.
      model_dir: written by train.
      data_dir: written by prepare, in place of the CSV files.
      split: which part of it to score.
      coco_json: COCO file of the same images, whose annotations count instead, crowd regions included; the results
        get its image and category ids.
      checkpoint: "last", "best" by mask AP, or a step.
      batch_size: images run at once.
      jit_compile: compile detection as one XLA program.
      on_bad_record: "stop" at a file that cannot be used, or "skip" it, counted.
    """
    model, names = inference.load_model(model_dir, config.RetinaMask, checkpoint=checkpoint)
    data = open_records(data_dir) if data_dir else None
    other = data.classes if data_dir else read_classes(classes) if classes is not None else names
    if other.names != names.names:
        raise config.UserError(
            f"{data_dir or '--classes ' + classes} differs from the classes the model was trained "
            f"with ({os.path.join(model_dir, inference.CLASSES_FILE)}): {list(names.names)}"
        )
    if data_dir:
        records = data.split(split)
    else:
        records = scan_records(read_annotations(annotations, names), on_bad_record=on_bad_record).records
    detection_filter = config.DetectionFilter()
    detector = inference.make_detector(model, detection_filter, jit_compile=jit_compile)
    metrics, results = inference.evaluate_records(
        detector,
        config.InputPipeline(),
        records,
        names,
        batch_size=batch_size,
        max_detections=max(100, detection_filter.max_detections),
    )
    if coco_json:
        results, truth = renumber_results(
            results, coco_json, {record.image_id: record.name for record in records}, names.names
        )
        metrics = evaluate_coco(truth, results, max_detections=metrics.max_detections)
    return metrics, results, names


def main():
    """Run the program."""
    if (FLAGS.predictions and not FLAGS.coco_json) or (FLAGS.coco_json and not (FLAGS.predictions or FLAGS.model_dir)):
        raise config.UserError(
            "--predictions and --coco_json go together: results, and the annotations that score them"
        )
    if FLAGS.predictions:
        metrics, names = evaluate_coco(FLAGS.coco_json, FLAGS.predictions), None
        output = FLAGS.metrics or "metrics.json"
    elif FLAGS.data_dir and (FLAGS.annotations or FLAGS.classes):
        raise config.UserError(
            "--data_dir holds images, annotations and classes: leave out --annotations and --classes"
        )
    elif (FLAGS.annotations or FLAGS.data_dir) and FLAGS.model_dir:
        config.parse_gin(FLAGS.gin_file, FLAGS.gin_param, model_dir=FLAGS.model_dir)
        metrics, results, classes = evaluate(
            FLAGS.annotations,
            FLAGS.classes,
            FLAGS.model_dir,
            data_dir=FLAGS.data_dir,
            split=FLAGS.split,
            coco_json=FLAGS.coco_json,
            checkpoint=FLAGS.checkpoint,
        )
        names = None if FLAGS.coco_json else classes.names
        output = FLAGS.metrics or os.path.join(FLAGS.model_dir, "metrics.json")
        write_results(os.path.join(os.path.dirname(output), "predictions.json"), results)
    else:
        raise config.UserError(
            "give --annotations and --model_dir, or --data_dir and --model_dir, to score a model, "
            "or --predictions and --coco_json to score a results file"
        )
    print(format_table(metrics, names))
    write_metrics(output, metrics)
    config.log.info("wrote %s", output)


if __name__ == "__main__":
    flags.DEFINE_string("annotations", None, "CSV of the images to score: image,x1,y1,x2,y2,class,mask.")
    flags.DEFINE_string("classes", None, "CSV of class names; the run's own where not given.")
    flags.DEFINE_string("data_dir", None, "Folder written by prepare, in place of --annotations and --classes.")
    flags.DEFINE_string("split", "validation", "Which split of --data_dir to score.")
    flags.DEFINE_string("model_dir", None, "Folder written by train.")
    flags.DEFINE_string("predictions", None, "COCO results file to score by --coco_json; no model is run.")
    flags.DEFINE_string(
        "coco_json",
        None,
        "COCO annotations file: scores --predictions, or the model in place of the boxes and masks of the CSV.",
    )
    flags.DEFINE_string("metrics", None, "Where the numbers go; MODEL_DIR/metrics.json where not given.")
    flags.DEFINE_string("checkpoint", "last", "Which weights: last, best (by mask AP, as train scored them) or a step.")
    config.define_gin_flags()
    config.run_program(main)
