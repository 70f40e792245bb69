"""The one place where a program's annotated images are opened: a source of any kind, or a prepared data set."""

import hashlib
import logging
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from tpu_retinamask.data.annotated_image import AnnotatedImage
from tpu_retinamask.data.annotations.class_names import ClassNames, read_classes
from tpu_retinamask.data.annotations.doubts import doubts
from tpu_retinamask.data.annotations.scan import ScanResult, scan_images
from tpu_retinamask.data.prepared.reading import open_records
from tpu_retinamask.data.sources.first_bytes import first_text
from tpu_retinamask.data.sources.registry import SOURCES, ReadOptions, SourceContent
from tpu_retinamask.data.sources.settings import SourceSettings
from tpu_retinamask.errors import UserError, gin_param, listed
from tpu_retinamask.file_kinds import refuse_no_file
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
    splits = read_splits(
        annotations,
        classes,
        val_annotations,
        settings=settings,
        image_folder=image_folder,
        val_image_folder=val_image_folder,
        source_format=source_format,
    )
    scanned = {name: scan_split(split) for name, split in splits.items()}
    classes_found = splits["train"].content.classes
    for doubt in doubts(scanned, classes_found):
        log.warning("%s", doubt)
    validation = scanned["validation"].images if "validation" in scanned else None
    return Sources(classes_found, scanned["train"].images, validation)


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
    return content.classes, scan_content(content, settings, annotations).images


class ReadSplit(NamedTuple):
    """The images of one split as their source lists them, and how it was read."""

    path: str
    kind: str  # name in `SOURCES`
    options: ReadOptions
    content: SourceContent
    sha256: str | None  # of the annotations, where they are one file


def read_splits(
    annotations: str | None,
    classes: str | None,
    val_annotations: str | None = None,
    *,
    settings: SourceSettings = SourceSettings(),  # noqa: B008  # frozen
    image_folder: str | None = None,
    val_image_folder: str | None = None,
    source_format: str | None = None,
) -> dict[str, ReadSplit]:
    """Read the sources of the splits `train` and `validation`; no image is opened yet.

    Args:
      annotations: where the training images are listed.
      classes: CSV of class names; None: those that the source of the training images says itself.
      val_annotations: where the images to score are listed, or None.
      settings: as of `open_sources`.
      image_folder: as of `open_sources`.
      val_image_folder: as of `open_sources`.
      source_format: as of `open_sources`.

    Returns:
      split -> ReadSplit; the classes of both are those of `train`.

    Raises:
      UserError, FileNotFoundError: as `open_sources`.
    """
    if not annotations:
        raise UserError("give --annotations and --classes, or --data_dir for a data set written by prepare")
    names = read_classes(classes) if classes else None
    folders = {"train": image_folder, "validation": val_image_folder or image_folder}
    splits = {}
    for split, path in (("train", annotations), ("validation", val_annotations)):
        if path:
            kind, options = source_format or recognise(path), ReadOptions(settings, folders[split])
            content = read_source(path, names, kind, options)
            names = content.classes
            is_file = tf.io.gfile.exists(path) and not tf.io.gfile.isdir(path)  # data.yaml#val is a part of one
            digest = hashlib.sha256(read_bytes(path)).hexdigest() if is_file else None
            splits[split] = ReadSplit(path, kind, options, content, digest)
    return splits


def scan_split(split: ReadSplit, **scanning: Any) -> ScanResult:
    """Open every file that a split names; see `scan_content`."""
    return scan_content(split.content, split.options.settings, split.path, **scanning)


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
    name = source_format or recognise(path)
    content = SOURCES.get(name).read(path, classes, options)
    unknown = [
        f"{image.words[1].format(instance.line)}, {image.name}: class {instance.class_id}"
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


def scan_content(content: SourceContent, settings: SourceSettings, path: str, **scanning: Any) -> ScanResult:
    """Open every file that a source names.

    Args:
      content: of the source.
      settings: of the reading.
      path: of the source, in the words of an error.
      **scanning: threads, progress and elsewhere of `scan.scan_images`.

    Raises:
      UserError: as `scan.scan_images`; no object is left, and the settings do not allow it.
    """
    scanned = scan_images(
        content.images,
        on_bad_record=settings.on_bad_record,
        exif_orientation=settings.exif_orientation,
        pixels=settings.pixels,
        source=path,
        **scanning,
    )
    if not settings.allow_empty and not any(annotated.instances for annotated in scanned.images):
        notes = "".join(f"\n  {note}" for note in content.notes)
        raise UserError(
            f"{path}: {len(scanned.images)} images, and no object is left in them. If that is meant, go on by "
            f"{gin_param('source.allow_empty', True)}{notes}"
        )
    return scanned


def recognise(path: str) -> str:
    """Return the name of the kind of source that annotations are of.

    Raises:
      FileNotFoundError: there is nothing.
      UserError: a folder, or a JSON file, that no kind recognises; a pipe or a device.
    """
    # The CSV last: it takes whatever is called one.
    names = sorted(SOURCES.names(), key=lambda name: name == "csv")
    for name in names:
        if SOURCES.get(name).recognise(path):
            return name
    if not tf.io.gfile.exists(path):
        raise FileNotFoundError(f"{path}: no such file")
    if tf.io.gfile.isdir(path):
        raise UserError(f"--annotations={path} is a folder of no kind that is known ({names}); name one by --format")
    refuse_no_file(path)
    if first_text(path).lstrip().startswith(("{", "[")):
        raise UserError(f"--annotations={path} is JSON of no kind that is known ({names}); name one by --format")
    return "csv"


def _refuse_both(data_dir: str | None, **others: str | None) -> None:
    given = [f"--{name}" for name, value in others.items() if value]
    if data_dir and given:
        raise UserError(f"--data_dir holds images, annotations and classes: leave out {' and '.join(given)}")
