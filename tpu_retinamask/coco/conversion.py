"""Annotated images of any source as a CSV and label maps that training reads, or as COCO instances."""

import concurrent.futures
import csv
import decimal
import io
import itertools
import json
import os
import posixpath
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import tensorflow as tf
import tqdm

from tpu_retinamask.coco.label_maps import LabelMapFolder, layer_masks, place_of, relative
from tpu_retinamask.coco.writing import coco_from_images
from tpu_retinamask.data.annotated_image import AnnotatedImage
from tpu_retinamask.data.annotations.class_names import ClassNames
from tpu_retinamask.data.annotations.csv_rows import read_rows
from tpu_retinamask.data.images.mask_reader import MaskReader, shared_mask_files
from tpu_retinamask.errors import UserError
from tpu_retinamask.files import read_bytes, remove_file, write_together

WRITTEN_BY = "written by retinamask convert"  # `info.description` of a COCO file of ours


class Conversion(NamedTuple):
    """What a conversion wrote."""

    images: int
    instances: int
    without_mask: int  # their boxes are trained
    mask_files: int

    def summary(self) -> str:
        """Tell in one line what was written."""
        return (
            f"{self.images} images with {self.instances} instances, {self.mask_files} mask files; "
            f"{self.without_mask} instances have no mask"
        )


def write_csv(
    images: Sequence[AnnotatedImage],
    classes: ClassNames,
    *,
    output: str,
    mask_folder: str | None,
    beside: Sequence[tuple[str, str]] = (),
    inputs: Iterable[str] = (),
    threads: int = 8,
    progress: bool = False,
) -> Conversion:
    """Write a CSV and its label maps, one row an instance in the order of the images.

    Images without objects get a row of their own. An output that is there is replaced only where an earlier conversion
    wrote it, which its label maps tell, or its bytes. It goes before they change, and comes when all are there.

    Args:
      images: what `scan.scan_images` kept, in files of their own.
      classes: names of the classes.
      output: path of the CSV; image and mask paths in it are relative to its folder where they can be.
      mask_folder: where the label maps go; None: no object has a mask.
      beside: path and text of files that belong to it; where the output is, they are.
      inputs: files that the conversion reads beside images and masks, and never replaces.
      threads: images converted at a time.
      progress: show a progress bar.

    Raises:
      UserError: masks and no folder for them; label maps or an output that would replace what is not of this
        conversion.
    """
    masks = sum(instance.mask is not None for image in images for instance in image.instances)
    if masks and not mask_folder:
        raise UserError(f"{masks} objects have masks: say where their label maps go by --masks=FOLDER")
    refuse_inputs(output, images, inputs)
    folder = None
    if mask_folder:
        read = [*_files_of(images), *inputs, output]
        folder = LabelMapFolder(mask_folder, output, [image.name for image in images], read)
    paths = folder.paths if folder else [""] * len(images)

    def convert(job: tuple[AnnotatedImage, str]) -> tuple[list, int]:
        return _convert_image(*job, classes, folder, output)

    there = tf.io.gfile.exists(output)
    if there and masks:
        if not _wrote(output, folder):
            _refuse_output(output)
        remove_file(output)
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        found = pool.map(convert, zip(images, paths))
        found = list(tqdm.tqdm(found, total=len(images), desc="convert", unit="image", disable=not progress))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(row for rows, _ in found for row in rows)
    if there and not masks and read_bytes(output) != text.getvalue().encode():
        _refuse_output(output)
    write_together([*beside, (output, text.getvalue())])
    kept = [row for rows, _ in found for row in rows if row[1]]
    return Conversion(
        images=len(images),
        instances=len(kept),
        without_mask=sum(not row[6] for row in kept),
        mask_files=sum(files for _, files in found),
    )


def write_coco(
    images: Sequence[AnnotatedImage],
    classes: ClassNames,
    *,
    output: str,
    beside: Sequence[tuple[str, str]] = (),
    image_folder: str | None = None,
    inputs: Iterable[str] = (),
    keep_names: bool = False,
) -> None:
    """Write COCO instances; masks become run lengths.

    Args:
      images: what `scan.scan_images` kept, in files of their own.
      classes: names of the classes.
      output: path of the file; one that is there is replaced only where a conversion wrote it.
      beside: path and text of files that belong to it; where the output is, they are.
      image_folder: that file names are relative to; None: the output's.
      inputs: files that the conversion reads beside images and masks, and never replaces.
      keep_names: leave file names as the source writes them.

    Raises:
      UserError: the output would replace what no conversion wrote.
    """
    refuse_inputs(output, images, inputs)
    content = coco_from_images(images, classes)
    content["info"] = {"description": WRITTEN_BY}
    start = posixpath.join(image_folder, "x") if image_folder else output
    for entry, image in zip(content["images"], images):
        if not keep_names:
            entry["file_name"] = relative(str(image.image), start)
    text = json.dumps(content, allow_nan=False)
    if tf.io.gfile.exists(output) and not _is_our_coco(output):
        _refuse_output(output)
    write_together([*beside, (output, text)])


def refuse_inputs(
    output: str, images: Sequence[AnnotatedImage], inputs: Iterable[str], *, flag: str = "--output"
) -> None:
    """Refuse an output, which a flag names, that is one of the files that are read.

    Raises:
      UserError: it is.
    """
    if place_of(output) in {place_of(path) for path in itertools.chain(_files_of(images), inputs)}:
        raise UserError(f"{flag}={output} is a file that this conversion reads or writes already: give another path")


def _files_of(images: Sequence[AnnotatedImage]) -> set[str]:
    files = {str(image.image) for image in images}
    for image in images:
        for instance in image.instances:
            files.update(instance.mask.files() if instance.mask is not None else ())
    return files


def _convert_image(
    image: AnnotatedImage, mask_path: str, classes: ClassNames, folder: LabelMapFolder | None, output: str
) -> tuple[list, int]:
    """Write the label maps of an image; return its rows and how many maps there are."""
    reader, shared = MaskReader(), shared_mask_files(image)
    path = relative(str(image.image), output)
    rows, masks = [], []
    for instance in image.instances:
        mask = None
        if instance.mask is not None:
            mask = reader.read(instance, image.height, image.width, shared)
        rows.append([path, *map(_edge, instance.box), classes.name_of(instance.class_id), ""])
        masks.append(mask if mask is not None and mask.any() else None)
    places, layers = layer_masks(masks)
    files: list[str] = []
    if folder is not None:
        files = list(itertools.islice(folder.further(mask_path), len(layers)))
        for file, layer in zip(files, layers):
            folder.write(file, layer)
    for row, place in zip(rows, places):
        if place is not None:
            row[6] = f"{relative(files[place[0]], output)}#{place[1]}"
    return rows or [[path, "", "", "", "", "", ""]], len(files)


def _edge(value: float) -> str:
    exact = decimal.Decimal(repr(float(value)))
    return f"{exact.quantize(decimal.Decimal(1)) if exact == exact.to_integral() else exact:f}"


def _wrote(output: str, folder: LabelMapFolder | None) -> bool:
    """Tell whether a CSV is of an earlier conversion: its first label map says that it was written for it."""
    if folder is None:
        return False
    try:
        rows = read_rows(output)
    except UserError:
        return False
    masks = (row[6].rpartition("#")[0] for _, row in rows if len(row) == 7 and "#" in row[6])
    first = next(masks, None)
    return first is not None and folder.wrote(posixpath.join(os.path.dirname(output), first))


def _is_our_coco(path: str) -> bool:
    head = read_bytes(path)
    return WRITTEN_BY.encode() in head


def _refuse_output(output: str) -> None:
    raise UserError(
        f"--output={output} is there already, and it cannot be told that this conversion wrote it: give another path, "
        "or remove it"
    )
