"""The one place where a program's annotated images are opened: a source of any kind, or a prepared data set."""

import hashlib
import logging
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from tpu_retinamask.data.annotated_image import AnnotatedImage
from tpu_retinamask.data.annotations.class_names import ClassNames, read_classes
from tpu_retinamask.data.annotations.scan import ScanResult, scan_images
from tpu_retinamask.data.prepared.reading import open_records
from tpu_retinamask.data.sources.registry import SOURCES, ReadOptions, SourceContent
from tpu_retinamask.data.sources.settings import SourceSettings
from tpu_retinamask.errors import UserError, listed
from tpu_retinamask.files import read_bytes

log = logging.getLogger(__name__)


class Sources(NamedTuple):
    """Annotated images and their classes."""

    classes: ClassNames
    train: Sequence[AnnotatedImage]
    validation: Sequence[AnnotatedImage] | None


def open_sources(
    annotations: str | None,
    classes: str | None,
    val_annotations: str | None,
    data_dir: str | None,
    *,
    settings: SourceSettings = SourceSettings(),  # noqa: B008  # frozen
    image_folder: str | None = None,
    val_image_folder: str | None = None,
    source_format: str | None = None,
) -> Sources:
    """Open the images that a run trains on and those that it scores.

    Args:
      annotations: where the training images are listed.
      classes: CSV of class names; None: those that the source says itself.
      val_annotations: where the images to score are listed.
      data_dir: written by prepare, in place of these three; its split `validation`, if it has one, is scored.
      settings: of the reading; a prepared data set has been read by its own.
      image_folder: where the training images lie; None: where the source says.
      val_image_folder: where the images to score lie; None: as the training images.
      source_format: name in `SOURCES`; None: recognised.

    Raises:
      UserError: both kinds are given, or neither; whatever a source finds wrong.
      FileNotFoundError: a file does not exist.
    """
    _refuse_both(data_dir, annotations=annotations, classes=classes, val_annotations=val_annotations)
    if data_dir:
        data = open_records(data_dir)
        validation = data.split("validation") if "validation" in data.splits else None
        return Sources(data.classes, data.split("train"), validation)
    names, splits, _ = scan_splits(
        annotations,
        classes,
        val_annotations,
        settings=settings,
        image_folder=image_folder,
        val_image_folder=val_image_folder,
        source_format=source_format,
    )
    return Sources(names, splits["train"].images, splits["validation"].images if "validation" in splits else None)


def open_images(
    annotations: str | None,
    classes: str | None,
    data_dir: str | None,
    split: str = "train",
    *,
    settings: SourceSettings = SourceSettings(),  # noqa: B008  # frozen
    image_folder: str | None = None,
    source_format: str | None = None,
    known_classes: ClassNames | None = None,
) -> tuple[ClassNames, Sequence[AnnotatedImage]]:
    """Open the images of one split.

    Args:
      annotations: where they are listed.
      classes: CSV of class names; None: `known_classes`, or those that the source says itself.
      data_dir: written by prepare, in place of these two.
      split: which part of it.
      settings: as of `open_sources`.
      image_folder: as of `open_sources`.
      source_format: as of `open_sources`.
      known_classes: those of the model that is to look at the images.

    Raises:
      UserError, FileNotFoundError: as `open_sources`.
    """
    _refuse_both(data_dir, annotations=annotations, classes=classes)
    if data_dir:
        data = open_records(data_dir)
        return data.classes, data.split(split)
    if classes is not None:
        known_classes = read_classes(classes)
    if not annotations:
        raise UserError("give --annotations and --classes, or --data_dir for a data set written by prepare")
    content = read_source(annotations, known_classes, source_format, ReadOptions(settings, image_folder))
    scanned = scan_images(
        content.images,
        on_bad_record=settings.on_bad_record,
        exif_orientation=settings.exif_orientation,
        pixels=settings.pixels,
    )
    return content.classes, scanned.images


def scan_splits(
    annotations: str | None,
    classes: str | None,
    val_annotations: str | None = None,
    *,
    settings: SourceSettings = SourceSettings(),  # noqa: B008  # frozen
    image_folder: str | None = None,
    val_image_folder: str | None = None,
    source_format: str | None = None,
    **scanning: Any,
) -> tuple[ClassNames, dict[str, ScanResult], dict[str, str]]:
    """Read the sources of the splits `train` and `validation`, and open every file that they name.

    Args:
      annotations: where the training images are listed.
      classes: CSV of class names; None: those that the source of the training images says itself.
      val_annotations: where the images to score are listed, or None.
      settings: as of `open_sources`.
      image_folder: as of `open_sources`.
      val_image_folder: as of `open_sources`.
      source_format: as of `open_sources`.
      **scanning: threads and progress of `scan.scan_images`.

    Returns:
      (classes; split -> ScanResult; split -> SHA-256 of the annotations, where they are one file).

    Raises:
      UserError, FileNotFoundError: as `open_sources`.
    """
    if not annotations:
        raise UserError("give --annotations and --classes, or --data_dir for a data set written by prepare")
    names = read_classes(classes) if classes else None
    splits, digests = {}, {}
    folders = {"train": image_folder, "validation": val_image_folder or image_folder}
    for split, path in (("train", annotations), ("validation", val_annotations)):
        if path:
            content = read_source(path, names, source_format, ReadOptions(settings, folders[split]))
            names = content.classes
            splits[split] = scan_images(
                content.images,
                on_bad_record=settings.on_bad_record,
                exif_orientation=settings.exif_orientation,
                pixels=settings.pixels,
                **scanning,
            )
            if not tf.io.gfile.isdir(path):
                digests[split] = hashlib.sha256(read_bytes(path)).hexdigest()
    assert names is not None  # a source without classes has raised
    return names, splits, digests


def read_source(
    path: str,
    classes: ClassNames | None,
    source_format: str | None = None,
    options: ReadOptions = ReadOptions(),  # noqa: B008  # a tuple
) -> SourceContent:
    """Read annotations of a kind that is named, or recognised.

    Raises:
      UserError: no kind recognises them; lists those that there are.
    """
    name = source_format or _recognised(path)
    content = SOURCES.get(name).read(path, classes, options)
    unknown = [
        f"line {instance.line}, {image.name}: class {instance.class_id}"
        for image in content.images
        for instance in image.instances
        if not 0 <= instance.class_id < content.classes.num_classes
    ]
    if unknown:
        raise UserError(
            f"{path}: {len(unknown)} classes outside 0..{content.classes.num_classes - 1}\n{listed(unknown)}"
        )
    said = os.path.basename(path.rstrip("/"))
    log.info("%s: %d images, read as %s", said, len(content.images), name)
    for note in content.notes:
        log.warning("%s: %s", said, note)
    return content


def _recognised(path: str) -> str:
    # The CSV last: it takes whatever is called one.
    names = sorted(SOURCES.names(), key=lambda name: name == "csv")
    for name in names:
        if SOURCES.get(name).recognise(path):
            return name
    if not tf.io.gfile.exists(path):
        raise FileNotFoundError(f"{path}: no such file")
    if tf.io.gfile.isdir(path):
        raise UserError(f"--annotations={path} is a folder of no kind that is known ({names}); name one by --format")
    return "csv"


def _refuse_both(data_dir: str | None, **others: str | None) -> None:
    given = [f"--{name}" for name, value in others.items() if value]
    if data_dir and given:
        raise UserError(f"--data_dir holds images, annotations and classes: leave out {' and '.join(given)}")
