r"""Turn COCO instances into a CSV with label maps, or a CSV into COCO instances.

  python -m tpu_retinamask.convert coco --instances=instances_train.json --images=train2017 \
      --output=train.csv --classes=classes.csv --masks=masks/train
  python -m tpu_retinamask.convert csv --annotations=train.csv --classes=classes.csv --output=instances.json

Crowd regions stay in the COCO file: the CSV leaves them out, and `evaluate --coco_json` scores a model against the
file itself, where they are neither wanted nor held against a detection.
"""

import logging
from typing import Literal

import gin
import tensorflow as tf

from tpu_retinamask import config
from tpu_retinamask.coco.conversion import class_names, write_csv
from tpu_retinamask.coco.reading import load_ground_truth
from tpu_retinamask.coco.writing import coco_from_images
from tpu_retinamask.data.annotations.class_names import read_classes
from tpu_retinamask.data.annotations.csv_annotations import read_annotations
from tpu_retinamask.data.annotations.scan import scan_images
from tpu_retinamask.errors import UserError
from tpu_retinamask.files import write_atomically, write_json_atomically
from tpu_retinamask.programs.command_line import Flags
from tpu_retinamask.programs.own_settings import checked

log = logging.getLogger(__name__)

NEEDED = {"coco": ("instances", "images", "output", "classes", "masks"), "csv": ("annotations", "classes", "output")}


@gin.configurable
@checked(threads=(1, None))
def convert(
    direction: str,
    paths: dict[str, str],
    *,
    on_bad_record: Literal["stop", "skip"] | None = None,
    threads: int = 8,
    progress: bool = True,
) -> str:
    """Convert in one of the two directions and return a line that says what was written.

    Args:
      direction: "coco", from a COCO file to a CSV, or "csv", the other way.
      paths: the values of the flags that the direction needs.
      on_bad_record: in place of that of `source`; None: that holds.
      threads: images converted at a time.
      progress: show a progress bar.
    """
    settings = config.reading(on_bad_record=on_bad_record)
    on_bad_record = settings.on_bad_record
    if direction == "csv":
        names = read_classes(paths["classes"])
        listed = read_annotations(paths["annotations"], names)
        scanned = scan_images(
            listed,
            on_bad_record=on_bad_record,
            exif_orientation=settings.exif_orientation,
            pixels=settings.pixels,
            threads=threads,
            progress=progress,
        )
        write_json_atomically(paths["output"], coco_from_images(scanned.images, names))
        return scanned.summary()
    truth = load_ground_truth(paths["instances"], with_masks=True)
    names = class_names(truth.categories)
    if tf.io.gfile.exists(paths["classes"]) and read_classes(paths["classes"]).names != names.names:
        raise UserError(
            f"--classes {paths['classes']} exists and holds other classes than {paths['instances']}: give another "
            "path. Files that belong together must share their categories"
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
    write_atomically(paths["classes"], names.to_csv())
    return found.summary()


def run(flags: Flags, direction: str | None = None) -> None:
    """Run the program."""
    if direction is None:
        raise UserError(
            "say which way: `convert coco --instances=...` writes a CSV, "
            "`convert csv --annotations=...` writes COCO instances"
        )
    missing = [f"--{name}" for name in NEEDED[direction] if flags[name].value is None]
    if missing:
        raise UserError(f"convert {direction} needs {', '.join(missing)}")
    config.parse_gin(flags.gin_file, flags.gin_param)
    said = convert(direction, {name: flags[name].value for name in NEEDED[direction]})
    log.info("wrote %s: %s", flags.output, said)
