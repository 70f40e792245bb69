"""COCO ground truth and results, read and checked, in the form `pycocotools.COCOeval` can be trusted with.

pycocotools trusts its input: an annotation with id 0 never counts as found, two annotations with one id
become one, a run-length mask of the wrong size overlaps nothing, a missing `iscrowd` is a bare KeyError.
Here every annotation gets an id from 1, the optional keys are filled in, and what cannot be right is an
error that names the entries. The caller's lists and dicts are never changed.
"""

import json
import math
import numbers
import os
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from pycocotools import mask as rle_codec

from tpu_retinamask.errors import UserError, listed


class GroundTruth(NamedTuple):
    """A COCO dataset ready for scoring."""

    images: dict  # id -> image entry
    categories: dict  # id -> category entry
    annotations: list  # bbox, area, iscrowd, id (from 1), segmentation: compressed RLE or None


def read_json(path_or_content: Any, what: str) -> Any:
    """Return the content of a JSON file (local or gs://), or the argument itself if it is no path."""
    if not isinstance(path_or_content, (str, os.PathLike)):
        return path_or_content
    path = os.fspath(path_or_content)
    try:
        with tf.io.gfile.GFile(path, "r") as file:
            return json.load(file)
    except tf.errors.NotFoundError:
        raise FileNotFoundError(f"{what} {path}: no such file") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{what} {path}: not a JSON file: {error}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{what} {path}: not a JSON text file: {error}") from None


def load_ground_truth(ground_truth: dict | str | os.PathLike, with_masks: bool) -> GroundTruth:
    """Read a COCO dataset and check it.

    Args:
        ground_truth: dict in the COCO instances format, or the path of such a file.
        with_masks: convert each segmentation (polygons or run lengths) to RLE. An annotation with
            `"has_mask": 0`, without a `segmentation` key or with an empty one gets None.

    Returns:
        A `GroundTruth`; shares nothing that is later modified with the argument.

    Raises:
        FileNotFoundError, UserError: naming the file and up to 20 bad entries.
    """
    name = _named("ground truth", ground_truth)
    dataset = read_json(ground_truth, "ground truth")
    if not isinstance(dataset, dict) or not {"images", "categories"} <= dataset.keys():
        got = f"keys {sorted(dataset)[:9]}" if isinstance(dataset, dict) else type(dataset).__name__
        raise UserError(f"{name}: got {got}; expected a COCO dataset with 'images', 'categories' and 'annotations'")
    images = _index_by_id(dataset["images"], f"{name}: images")
    categories = _index_by_id(dataset["categories"], f"{name}: categories")
    faults, annotations = [], []
    for position, entry in enumerate(dataset.get("annotations", [])):
        label = f"annotation {position} (id {entry.get('id')})"
        missing = {"image_id", "category_id", "bbox"} - entry.keys()
        if missing:
            faults.append(f"{label}: no {', '.join(sorted(missing))}")
        elif entry["image_id"] not in images:
            faults.append(f"{label}: image id {entry['image_id']!r} is not among the images")
        elif entry["category_id"] not in categories:
            faults.append(f"{label}: category id {entry['category_id']!r} is not among the categories")
        elif not _is_box(entry["bbox"]):
            faults.append(f"{label}: bbox {entry['bbox']!r}, expected x, y, width, height")
        else:
            try:
                image = images[entry["image_id"]]
                annotations.append(_annotation(entry, image, with_masks, len(annotations) + 1))
            except _BadEntry as error:
                faults.append(f"{label}: {error}")
    _raise_if_any(faults, f"{name}: annotations that cannot be scored")
    return GroundTruth(images, categories, annotations)


def load_results(results: list[dict] | str | os.PathLike, truth: GroundTruth, iou_types: Sequence[str]) -> list[dict]:
    """Read COCO results and check them against the ground truth.

    Args:
        results: list of COCO result entries, possibly empty, or the path of such a file.
        truth: what the results are scored against.
        iou_types: with 'segm' every entry needs a segmentation, with 'bbox' a bbox; a missing bbox is taken
            from the segmentation, as pycocotools does.

    Returns:
        Copies of the entries with id (from 1), iscrowd 0 and, for 'segm', segmentation as RLE.

    Raises:
        FileNotFoundError, UserError: for unknown image or category ids, missing keys, a box, score or mask
            that cannot be right; naming up to 20 of them.
    """
    name = _named("results", results)
    entries = read_json(results, "results")
    if not isinstance(entries, list):
        hint = "; this looks like a dataset, not like results" if isinstance(entries, dict) else ""
        got = type(entries).__name__
        raise UserError(f"{name}: got {got}, expected a list of COCO result entries{hint}")
    faults, unknown = [], {"image": Counter(), "category": Counter()}
    checked = []
    for position, entry in enumerate(entries):
        if not isinstance(entry, dict) or not {"image_id", "category_id", "score"} <= entry.keys():
            faults.append(f"entry {position}: {_short(entry)}, expected image_id, category_id, bbox, score")
            continue
        if entry["image_id"] not in truth.images or entry["category_id"] not in truth.categories:
            unknown["image"][entry["image_id"]] += entry["image_id"] not in truth.images
            unknown["category"][entry["category_id"]] += entry["category_id"] not in truth.categories
            continue
        try:
            checked.append(_result(entry, truth.images[entry["image_id"]], iou_types, len(checked) + 1))
        except _BadEntry as error:
            faults.append(f"entry {position} (image {entry['image_id']!r}): {error}")
    for kind, known in (("image", truth.images), ("category", truth.categories)):
        ids = +unknown[kind]
        _raise_if_any(
            [f"{kind} id {value!r} ({count} entries)" for value, count in ids.items()],
            f"{name}: {kind} ids that the ground truth does not have (it has {len(known)}, such as "
            f"{list(known)[:3]}); score the results against the file whose ids they use",
        )
    _raise_if_any(faults, f"{name}: entries that cannot be scored")
    return checked


class _BadEntry(UserError):
    """A box, score or mask that cannot be right; gathered under its entry's name."""


def _annotation(entry: dict, image: dict, with_masks: bool, new_id: int) -> dict:
    x, y, width, height = entry["bbox"]
    rle = None
    if with_masks:
        if not {"height", "width"} <= image.keys():
            raise _BadEntry(f"image {image['id']!r} has no height and width, which masks need")
        if entry.get("has_mask", 1):
            rle = _to_rle(entry.get("segmentation"), image)
    area = entry.get("area")
    if area is None:  # not written by every converter; pycocotools would stop with a KeyError
        area = width * height if rle is None else float(rle_codec.area(rle))
    return {
        "id": new_id,  # from 1: COCOeval marks "found" by the id, and 0 reads as not found
        "image_id": entry["image_id"],
        "category_id": entry["category_id"],
        "bbox": [x, y, width, height],
        "area": area,
        "iscrowd": int(entry.get("iscrowd", 0)),
        "segmentation": rle,
    }


def _result(entry: dict, image: dict, iou_types, new_id: int) -> dict:
    score, box, rle = entry["score"], entry.get("bbox") or None, None
    if not isinstance(score, numbers.Real) or not math.isfinite(score):
        raise _BadEntry(f"score {score!r}, expected a finite number")
    if "segm" in iou_types or box is None:
        rle = _to_rle(entry.get("segmentation"), image)
        if rle is None and box is None:
            raise _BadEntry("neither bbox nor segmentation")
        not_made = "segmentation" in entry and entry["segmentation"] is None  # beyond DetectionFilter.max_masks
        if rle is None and not not_made:
            raise _BadEntry("no segmentation, but 'segm' is asked for; score boxes with iou_types=('bbox',)")
    if box is None:
        box = rle_codec.toBbox(rle).tolist()
    elif not _is_box(box):
        raise _BadEntry(f"bbox {box!r}, expected x, y, width, height")
    return {
        "id": new_id,
        "image_id": entry["image_id"],
        "category_id": entry["category_id"],
        "bbox": list(box),
        "score": score,
        "iscrowd": 0,
        "segmentation": rle,
    }


def _to_rle(segmentation, image: dict) -> dict | None:
    """Convert polygons or run lengths to compressed RLE; None where there is no mask."""
    if not segmentation:
        return None
    if not {"height", "width"} <= image.keys():
        raise _BadEntry(f"image {image['id']!r} has no height and width, which masks need")
    height, width = int(image["height"]), int(image["width"])
    try:
        if isinstance(segmentation, list):
            # Two points enclose nothing, and pycocotools would read 4 numbers as a box.
            polygons = [polygon for polygon in segmentation if len(polygon) >= 6]
            return rle_codec.merge(rle_codec.frPyObjects(polygons, height, width)) if polygons else None
        if [int(side) for side in segmentation["size"]] != [height, width]:
            raise _BadEntry(
                f"segmentation has size {segmentation['size']} (height, width), the image [{height}, {width}]"
            )
        if isinstance(segmentation["counts"], list):
            return rle_codec.frPyObjects(segmentation, height, width)
        return {"size": [height, width], "counts": segmentation["counts"]}
    except _BadEntry:
        raise
    except Exception as error:  # whatever the codec's C code makes of malformed input
        raise _BadEntry(f"segmentation is neither polygons nor run lengths: {error!r}") from None


def _named(what: str, path_or_content: Any) -> str:
    """Return what is read, with its path where it has one."""
    is_path = isinstance(path_or_content, str | os.PathLike)
    return f"{what} {os.fspath(path_or_content)}" if is_path else what


def _is_box(value) -> bool:
    try:
        return len(value) == 4 and bool(np.all(np.isfinite(np.asarray(value, np.float64))))
    except (TypeError, ValueError):
        return False


def _index_by_id(entries: list, what: str) -> dict:
    ids = [entry["id"] for entry in entries]
    repeated = [str(value) for value, count in Counter(ids).items() if count > 1]
    _raise_if_any(repeated, f"{what}: ids used more than once")
    return dict(zip(ids, entries))


def _short(value) -> str:
    text = repr(value)
    return text if len(text) <= 100 else text[:97] + "..."


def _raise_if_any(faults: list[str], heading: str) -> None:
    if faults:
        raise UserError(f"{heading}:\n{listed(faults)}")
