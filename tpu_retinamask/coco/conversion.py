"""COCO instances as a CSV, a class file and label maps that training reads."""

import concurrent.futures
import csv
import decimal
import io
import itertools
import os
import posixpath
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import PIL.Image
import tensorflow as tf
import tqdm
from pycocotools import mask as rle_codec

from tpu_retinamask.data.annotations.class_names import MAX_CLASS_ID, ClassNames
from tpu_retinamask.data.annotations.csv_rows import AnnotationError

LABELS = 255  # instances of one label map, which has 8 bits


class Conversion(NamedTuple):
    """What a conversion wrote and what it left out."""

    images: int
    instances: int
    without_mask: int  # no segmentation, or one so thin that it covers no pixel: the box is trained
    crowds: int  # crowd regions: left out
    crowd_only_images: int  # written as images without objects
    dropped: int  # bad instances left out
    mask_files: int

    def summary(self) -> str:
        """Tell in one line what was written."""
        text = (
            f"{self.images} images with {self.instances} instances, {self.mask_files} mask files; "
            f"{self.without_mask} instances have no mask; left out {self.crowds} crowd regions"
        )
        if self.crowd_only_images:
            text += f" ({self.crowd_only_images} images hold nothing else and stand there as images without objects)"
        return text + (f" and {self.dropped} bad instances" if self.dropped else "")


def class_names(categories: Mapping) -> ClassNames:
    """Number the categories of a COCO file from 0 in the order of their ids.

    Args:
      categories: id -> category entry.

    Raises:
      AnnotationError: no categories, too many, or names that are empty or used twice.
    """
    names = [str(categories[key].get("name", key)).strip() for key in sorted(categories)]
    problems = [
        f"category name {name!r} is {'empty' if not name else 'used twice'}"
        for name in dict.fromkeys(names)
        if not name or names.count(name) > 1
    ]
    if not 1 <= len(names) <= MAX_CLASS_ID + 1:
        problems.append(f"{len(names)} categories")
    if problems:
        raise AnnotationError("categories that cannot be classes", problems)
    return ClassNames(tuple(names))


def layer_masks(masks: Sequence[np.ndarray | None]) -> tuple[list, list[np.ndarray]]:
    """Draw masks into as few label maps as the first that has room gives: objects of COCO overlap.

    Args:
      masks: bool [h, w] an instance; None: no mask.

    Returns:
      ((map, label) of each instance, or None; the label maps, uint8 [h, w]).
    """
    places, layers, used = [], [], []
    for mask in masks:
        if mask is None:
            places.append(None)
            continue
        free = (i for i, layer in enumerate(layers) if used[i] < LABELS and not layer[mask].any())
        number = next(free, len(layers))
        if number == len(layers):
            layers.append(np.zeros(mask.shape, np.uint8))
            used.append(0)
        used[number] += 1
        layers[number][mask] = used[number]
        places.append((number, used[number]))
    return places, layers


def write_csv(
    images: Mapping,
    annotations: Sequence[dict],
    categories: Mapping,
    *,
    image_folder: str,
    output: str,
    mask_folder: str,
    on_bad_record: str = "stop",
    threads: int = 8,
    progress: bool = False,
) -> Conversion:
    """Write a CSV and its label maps, one row an instance in the order of the COCO file.

    Boxes are those of the file, decimals kept (`x2 = x + width` in decimal arithmetic). Images without objects
    get a row of their own. Crowd regions are left out: a CSV has no word for them; score against the COCO file.

    Args:
      images: id -> image entry with file_name, height, width.
      annotations: entries with image_id, category_id, bbox, iscrowd and segmentation (compressed run lengths or None).
      categories: id -> category entry; see `class_names`.
      image_folder: where the images lie.
      output: path of the CSV; image and mask paths in it are relative to its folder where they can be.
      mask_folder: where the label maps go.
      on_bad_record: 'stop' raises one error for all bad instances, 'skip' leaves them out, counted.
      threads: images converted at a time.
      progress: show a progress bar.

    Raises:
      ValueError: an unknown on_bad_record.
      AnnotationError: with 'stop', boxes without area or outside their image, masks without a pixel in their box;
        two images of one name; label maps that would replace images.
    """
    if on_bad_record not in ("stop", "skip"):
        raise ValueError(f"on_bad_record is {on_bad_record!r}, expected 'stop' or 'skip'")
    of_image: dict = {key: [] for key in images}
    for annotation in annotations:
        of_image[annotation["image_id"]].append(annotation)
    mask_paths = [
        posixpath.join(mask_folder, name) for name in _mask_names([entry["file_name"] for entry in images.values()])
    ]
    taken = {_absolute(posixpath.join(image_folder, entry["file_name"])) for entry in images.values()}
    _refuse_replacing(mask_paths, taken)
    taken.update(map(_absolute, mask_paths))  # by the first label map of each image, whatever further ones are called
    names = {key: str(entry.get("name", key)).strip() for key, entry in categories.items()}

    def convert(job):
        (key, entry), mask_path = job
        return _convert_image(entry, of_image[key], names, mask_path, image_folder, output, taken)

    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        found = pool.map(convert, zip(images.items(), mask_paths))
        found = list(tqdm.tqdm(found, total=len(images), desc="convert", unit="image", disable=not progress))
    problems = [problem for one in found for problem in one.problems]
    if problems and on_bad_record == "stop":
        raise AnnotationError(
            f"{len(problems)} bad instances; correct them, or set convert.on_bad_record = 'skip' to leave them out",
            problems,
        )
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(row for one in found for row in one.rows)
    tf.io.gfile.makedirs(posixpath.dirname(output) or ".")
    with tf.io.gfile.GFile(output, "w") as file:
        file.write(text.getvalue())
    kept = [row for one in found for row in one.rows if row[1]]
    crowds = [sum(annotation["iscrowd"] for annotation in entries) for entries in of_image.values()]
    return Conversion(
        images=len(images),
        instances=len(kept),
        without_mask=sum(not row[6] for row in kept),
        crowds=sum(crowds),
        crowd_only_images=sum(0 < count == len(entries) for count, entries in zip(crowds, of_image.values())),
        dropped=len(problems),
        mask_files=sum(one.mask_files for one in found),
    )


class _Converted(NamedTuple):
    rows: list
    problems: list
    mask_files: int


def _convert_image(entry, annotations, names, mask_path, image_folder, output, taken) -> _Converted:
    rows, masks, problems = [], [], []
    image = _relative(posixpath.join(image_folder, entry["file_name"]), output)
    for annotation in annotations:
        if annotation["iscrowd"]:
            continue
        box = _corners(annotation["bbox"])
        mask = None
        if annotation["segmentation"] is not None:
            mask = rle_codec.decode(annotation["segmentation"]).astype(bool)
            mask = mask if mask.any() else None
        problem = _problem(box, mask, entry)
        if problem:
            problems.append(
                f"{entry['file_name']}, {names[annotation['category_id']]} at "
                f"{','.join(map(str, annotation['bbox']))} (x,y,width,height): {problem}"
            )
            continue
        rows.append([image, *(f"{edge:f}" for edge in box), names[annotation["category_id"]], ""])
        masks.append(mask)
    places, layers = layer_masks(masks)
    files = list(itertools.islice(itertools.chain([mask_path], _further_paths(mask_path, taken)), len(layers)))
    for path, layer in zip(files, layers):
        _write_png(path, layer)
    for row, place in zip(rows, places):
        if place is not None:
            row[6] = f"{_relative(files[place[0]], output)}#{place[1]}"
    return _Converted(rows or [[image, "", "", "", "", "", ""]], problems, len(files))


def _corners(bbox) -> list[decimal.Decimal]:
    x, y, width, height = (decimal.Decimal(repr(float(value))) for value in bbox)
    return [
        edge.quantize(decimal.Decimal(1)) if edge == edge.to_integral() else edge
        for edge in (x, y, x + width, y + height)
    ]


def _problem(box, mask, entry) -> str | None:
    x1, y1, x2, y2 = (float(edge) for edge in box)
    if x2 <= x1 or y2 <= y1:
        return "the box has no area"
    if x1 >= entry["width"] or y1 >= entry["height"] or x2 <= 0 or y2 <= 0:
        return f"the box lies outside the image of {entry['width']} x {entry['height']} pixels"
    if mask is None or mask[max(int(y1), 0) : int(np.ceil(y2)), max(int(x1), 0) : int(np.ceil(x2))].any():
        return None
    return "the mask has no pixel inside the box"


def _mask_names(file_names: list[str]) -> list[str]:
    taken: set[str] = set()
    names = []
    for file_name in file_names:
        name = os.path.splitext(file_name)[0] + ".png"
        names.append(f"{file_name}.png" if name in taken else name)
        if names[-1] in taken:
            raise AnnotationError("images that cannot be told apart", [f"file_name {file_name!r} is used twice"])
        taken.add(names[-1])
    return names


def _further_paths(path: str, taken: set[str]):
    """Yield paths for more label maps of one image that belong to no other image."""
    stem, extension = os.path.splitext(path)
    for number in itertools.count(1):
        if _absolute(f"{stem}_{number}{extension}") not in taken:
            yield f"{stem}_{number}{extension}"


def _refuse_replacing(mask_paths, image_paths: set[str]):
    replaced = [path for path in mask_paths if _absolute(path) in image_paths]
    if replaced:
        raise AnnotationError(
            f"{len(replaced)} label maps would replace images: write them into a folder of their own (--masks)",
            [f"{path} is an image" for path in replaced],
        )


def _absolute(path: str) -> str:
    return path if "://" in path else os.path.abspath(path)


def _write_png(path: str, labels: np.ndarray):
    buffer = io.BytesIO()
    PIL.Image.fromarray(labels).save(buffer, "PNG")
    tf.io.gfile.makedirs(posixpath.dirname(path) or ".")
    with tf.io.gfile.GFile(path, "wb") as file:
        file.write(buffer.getvalue())


def _relative(path: str, output: str) -> str:
    """Return the path as the CSV writes it: relative to the CSV's folder, unless one of both is a URL."""
    if "://" in path or "://" in output:
        folder = posixpath.dirname(output) + "/"
        return path.removeprefix(folder) if "://" in output else path
    return os.path.relpath(path, os.path.dirname(output) or ".").replace(os.sep, "/")
