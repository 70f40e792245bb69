"""Where a program's annotated images come from: CSV files and what they name, or a prepared data set."""

from collections.abc import Sequence
from typing import NamedTuple

from tpu_retinamask.data.annotations.class_names import ClassNames, read_classes
from tpu_retinamask.data.annotations.csv_annotations import read_annotations
from tpu_retinamask.data.annotations.scan import ScannedRecord, scan_records
from tpu_retinamask.data.prepared.reading import open_records
from tpu_retinamask.errors import UserError


class Inputs(NamedTuple):
    """Annotated images and their classes."""

    classes: ClassNames
    train: Sequence[ScannedRecord]
    validation: Sequence[ScannedRecord] | None


def open_inputs(
    annotations: str | None,
    classes: str | None,
    val_annotations: str | None,
    data_dir: str | None,
    *,
    on_bad_record: str = "stop",
) -> Inputs:
    """Open the images that a run trains on and those that it scores.

    Args:
      annotations: CSV of the training images.
      classes: CSV of class names.
      val_annotations: CSV of the images to score.
      data_dir: written by prepare, in place of these three; its split `validation`, if it has one, is scored.
      on_bad_record: for the CSV files, see `scan.scan_records`; a prepared data set holds no bad records.

    Raises:
      UserError: both kinds of source are given, or neither.
      AnnotationError, FileNotFoundError: see `read_annotations` and `scan_records`.
      RecordsError: see `records.open_records`.
    """
    given = [
        f"--{name}"
        for name, value in (("annotations", annotations), ("classes", classes), ("val_annotations", val_annotations))
        if value
    ]
    if data_dir and given:
        raise UserError(f"--data_dir holds images, annotations and classes: leave out {' and '.join(given)}")
    if data_dir:
        data = open_records(data_dir)
        return Inputs(
            data.classes, data.split("train"), data.split("validation") if "validation" in data.splits else None
        )
    if not annotations or not classes:
        raise UserError("give --annotations and --classes, or --data_dir for a data set written by prepare")
    names = read_classes(classes)
    train, validation = (
        scan_records(read_annotations(path, names), on_bad_record=on_bad_record).records if path else None
        for path in (annotations, val_annotations)
    )
    return Inputs(names, train, validation)
