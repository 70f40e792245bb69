r"""Turn COCO instances into a CSV with label maps, or a CSV into COCO instances.

  python -m tpu_retinamask.convert coco --instances=instances_train.json --images=train2017 \
      --output=train.csv --classes=classes.csv --masks=masks/train
  python -m tpu_retinamask.convert csv --annotations=train.csv --classes=classes.csv --output=instances.json

Crowd regions stay in the COCO file: the CSV leaves them out, and `evaluate --coco_json` scores a model against the
file itself, where they are neither wanted nor held against a detection.
"""

import json
import sys

import tensorflow as tf
from absl import flags

import gin
from tpu_retinamask import config  # first: it quiets TensorFlow's start-up
from tpu_retinamask.coco.conversion import class_names, write_csv
from tpu_retinamask.coco.reading import load_ground_truth
from tpu_retinamask.coco.writing import coco_from_records
from tpu_retinamask.data.annotations.class_names import read_classes
from tpu_retinamask.data.annotations.csv_annotations import read_annotations
from tpu_retinamask.data.annotations.scan import scan_records

FLAGS = flags.FLAGS

NEEDED = {"coco": ("instances", "images", "output", "classes", "masks"), "csv": ("annotations", "classes", "output")}


@gin.configurable
def convert(direction: str, paths: dict, *, on_bad_record: str = "stop", threads: int = 8, progress: bool = True):
    """Convert in one of the two directions and return a line that says what was written.

    Args:
      direction: "coco", from a COCO file to a CSV, or "csv", the other way.
      paths: the values of the flags that the direction needs.
      on_bad_record: "stop" at an instance or file that cannot be used, or "skip" it, counted.
      threads: images converted at a time.
      progress: show a progress bar.
    """
    if direction == "csv":
        names = read_classes(paths["classes"])
        scanned = scan_records(
            read_annotations(paths["annotations"], names),
            on_bad_record=on_bad_record,
            threads=threads,
            progress=progress,
        )
        with tf.io.gfile.GFile(paths["output"], "w") as file:
            json.dump(coco_from_records(scanned.records, names), file)
        return scanned.summary()
    try:
        truth = load_ground_truth(paths["instances"], with_masks=True)
    except ValueError as error:  # it names the file and the entries
        raise config.UserError(str(error)) from error
    names = class_names(truth.categories)
    if tf.io.gfile.exists(paths["classes"]) and read_classes(paths["classes"]).names != names.names:
        raise config.UserError(
            f"--classes {paths['classes']} exists and holds other classes than "
            f"{paths['instances']}: give another path. Files that belong together must share their categories"
        )
    found = write_csv(
        truth.images,
        truth.annotations,
        truth.categories,
        image_folder=paths["images"],
        output=paths["output"],
        mask_folder=paths["masks"],
        on_bad_record=on_bad_record,
        threads=threads,
        progress=progress,
    )
    with tf.io.gfile.GFile(paths["classes"], "w") as file:
        file.write(names.to_csv())
    return found.summary()


def main():
    """Run the program."""
    if DIRECTION is None:
        raise config.UserError(
            "say which way: `convert coco --instances=...` writes a CSV, "
            "`convert csv --annotations=...` writes COCO instances"
        )
    missing = [f"--{name}" for name in NEEDED[DIRECTION] if FLAGS[name].value is None]
    if missing:
        raise config.UserError(f"convert {DIRECTION} needs {', '.join(missing)}")
    config.parse_gin(FLAGS.gin_file, FLAGS.gin_param)
    config.log.info(
        "wrote %s: %s", FLAGS.output, convert(DIRECTION, {name: FLAGS[name].value for name in NEEDED[DIRECTION]})
    )


if __name__ == "__main__":
    DIRECTION = sys.argv.pop(1) if sys.argv[1:2] and sys.argv[1] in NEEDED else None
    flags.DEFINE_string("instances", None, "COCO instances file (coco).")
    flags.DEFINE_string("images", None, "Folder of its images (coco).")
    flags.DEFINE_string("masks", None, "Folder that the label maps go to (coco).")
    flags.DEFINE_string("annotations", None, "CSV of images, boxes and masks (csv).")
    flags.DEFINE_string("classes", None, "CSV of class names: written (coco) or read (csv).")
    flags.DEFINE_string("output", None, "The CSV (coco) or the COCO file (csv) to write.")
    config.define_gin_flags()
    config.run_program(main)
