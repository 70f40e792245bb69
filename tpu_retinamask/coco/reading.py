"""COCO ground truth and results, read and checked, in the form `pycocotools.COCOeval` can be trusted with.

pycocotools trusts its input: an annotation with id 0 never counts as found, two annotations with one id
become one, a run-length mask of the wrong size overlaps nothing and one of the wrong sum never ends, a missing
`iscrowd` is a bare KeyError. The entries are read by `data.sources.coco_entries`, as those of a training are; here
every annotation gets an id from 1, the optional keys are filled in, and what cannot be right is an error that names the
entries. The caller's lists and dicts are never changed.
"""

import logging
import math
import os
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from pycocotools import mask as rle_codec

from tpu_retinamask.coco.names import Names
from tpu_retinamask.data.annotations.scan import are_fractions, in_fractions, misplaced_masks
from tpu_retinamask.data.images.image_files import BadFile
from tpu_retinamask.data.images.run_lengths import compressed_runs, polygon_run_lengths
from tpu_retinamask.data.masks import Mask, PolygonMask, RunLengthMask
from tpu_retinamask.data.sources.checked import BadEntry, Entry, Faults, load_json, shown
from tpu_retinamask.data.sources.coco_entries import (
    CocoDataset,
    CocoImage,
    CocoObject,
    read_box,
    read_dataset,
    read_mask,
)
from tpu_retinamask.data.sources.coco_ids import as_key, got
from tpu_retinamask.errors import UserError, listed

log = logging.getLogger(__name__)


class GroundTruth(NamedTuple):
    """A COCO dataset ready for scoring."""

    images: dict  # id -> image entry: id, and file_name, height and width where the file says them
    categories: dict  # id -> category entry: id, name
    annotations: list  # bbox, area, iscrowd, id (from 1), segmentation: compressed RLE or None
    names: Names  # finds images and categories by what results call them


def read_json(path_or_content: Any, what: str) -> Any:
    """Return the content of a JSON file (local or gs://), or the argument itself if it is no path.

    Raises:
        FileNotFoundError, UserError: naming the file and what it was to be.
    """
    if not isinstance(path_or_content, (str, os.PathLike)):
        return path_or_content
    try:
        return load_json(os.fspath(path_or_content))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{what} {error}") from None
    except UserError as error:
        raise UserError(f"{what} {error}") from None


def named(what: str, path_or_content: Any) -> str:
    """Return what is read, with its path where it has one."""
    is_path = isinstance(path_or_content, str | os.PathLike)
    return f"{what} {os.fspath(path_or_content)}" if is_path else what


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
    name = named("ground truth", ground_truth)
    dataset, faults = read_dataset(read_json(ground_truth, "ground truth"), name, with_masks=with_masks)
    annotations = []
    for found in dataset.objects:
        image = dataset.images[found.image]
        annotation = faults.collect(
            lambda found=found, image=image: _annotation(found, image, with_masks, len(annotations) + 1)
        )
        if annotation is not None:
            annotations.append(annotation)
    _raise_if_any(faults.said, f"{name}: entries that cannot be scored")
    if _in_first_pixel(annotations):
        raise UserError(f"{name}: {in_fractions(len(annotations))}")
    for note in dataset.notes:
        log.warning("%s: %s", name, note)
    _warn_of_misplaced(annotations, dataset, name)
    _warn_of_repeats(annotations, dataset, name)
    return GroundTruth(
        {key: _image_entry(image) for key, image in dataset.images.items()},
        {key: {"id": key, "name": said} for key, said in dataset.categories.items()},
        annotations,
        Names(dataset),
    )


def load_results(
    results: list[dict] | str | os.PathLike, truth: GroundTruth, iou_types: Sequence[str], name: str | None = None
) -> list[dict]:
    """Read COCO results and check them against the ground truth.

    An entry that says its `file_name` or `category_name`, as those of `predict` do, is matched by these names and
    not by its ids, which count the images of a run. An `image_id` that is the name of an image file, with its ending or
    without, stands for that image.

    Args:
        results: list of COCO result entries, possibly empty, or the path of such a file.
        truth: what the results are scored against.
        iou_types: with 'segm' every entry needs a segmentation, with 'bbox' a bbox; a missing bbox is taken
            from the segmentation, as pycocotools does.
        name: of the results, in the words of an error; None: their path.

    Returns:
        Copies of the entries with id (from 1), iscrowd 0 and, for 'segm', segmentation as RLE.

    Raises:
        FileNotFoundError, UserError: for unknown images or categories, missing keys, a box, score or mask
            that cannot be right; naming up to 20 of them.
    """
    name = name or named("results", results)
    entries = read_json(results, "results")
    if not isinstance(entries, list):
        dataset = isinstance(entries, dict) and {"images", "annotations"} & entries.keys()
        hint = "; this looks like a dataset, not like results" if dataset else ""
        raise UserError(f"{name}: got {shown(entries)}, expected a list of COCO result entries [{{...}}, ...]{hint}")
    faults = Faults()
    unknown: dict[str, Counter] = {
        field: Counter() for field in ("file_name", "image_id", "category_name", "category_id")
    }
    checked, by_name = [], 0
    for position, value in enumerate(entries):

        def one(position: int = position, value: Any = value) -> dict | None:
            nonlocal by_name
            entry = Entry(value, f"results[{position}]")
            missing = [field for field in ("image_id", "category_id", "score") if field not in entry.values]
            if missing:
                raise BadEntry(f"{entry.place}: {missing[0]}: got nothing, expected image_id, category_id, bbox, score")
            for field in ("image_id", "category_id"):
                if as_key(entry.values[field]) is None:
                    raise BadEntry(f"{entry.place}: {field}: {got(entry, field)}, expected a whole number or a text")
            image, image_named = truth.names.image_of(entry)
            category, _ = truth.names.category_of(entry)
            if image is None or category is None:
                for found, field in (
                    (image, _said(entry, "file_name", "image_id")),
                    (category, _said(entry, "category_name", "category_id")),
                ):
                    unknown[field][got(entry, field)] += found is None
                return None
            by_name += image_named
            return _result(entry, truth.images[image], category, iou_types, len(checked) + 1)

        found = faults.collect(one)
        if found is not None:
            checked.append(found)
    for field, counts in unknown.items():
        right = "annotations of these images and classes" if field.endswith("_name") else "file whose ids they use"
        _raise_if_any(
            [f"{field} {value.removeprefix('got ')} ({count} entries)" for value, count in (+counts).items()],
            f"{name}: {field}s that the ground truth does not have (it has {truth.names.some(field)}); score the "
            f"results against the {right}",
        )
    _raise_if_any(faults.said, f"{name}: entries that cannot be scored")
    _warn_of_boxes(checked, truth.images, name)
    if by_name:
        log.info("%s: %d of %d entries are matched by the name of their image file", name, by_name, len(checked))
    return checked


def has_masks(results: list[dict]) -> bool:
    """Tell whether a list of result entries holds any segmentation."""
    return any(isinstance(entry, dict) and entry.get("segmentation") for entry in results)


def warn_of_misplaced_results(results: Sequence[dict], name: str) -> None:
    """Warn where most masks of results lie outside their boxes for the most part."""
    _warn(_inside(results), name)


def _annotation(found: CocoObject, image: CocoImage, with_masks: bool, new_id: int) -> dict:
    place = f"annotations[{found.number}]"
    if with_masks and image.size is None:
        raise BadEntry(f"{place}: image {image.key!r} has no height and width, which masks need")
    rle = _to_rle(found.mask, image, place) if with_masks else None
    x, y, width, height = found.box
    _refuse_negative(place, found.box)
    area = found.area
    if area is None:  # not written by every converter; pycocotools would stop with a KeyError
        area = width * height if rle is None else float(rle_codec.area(rle))
    return {
        "id": new_id,  # from 1: COCOeval marks "found" by the id, and 0 reads as not found
        "image_id": found.image,
        "category_id": found.category,
        "bbox": [x, y, width, height],
        "area": area,
        "iscrowd": int(found.crowd),
        "segmentation": rle,
    }


def _result(entry: Entry, image: dict, category: Any, iou_types: Sequence[str], new_id: int) -> dict:
    score, box, rle = entry.number("score"), read_box(entry), None
    _refuse_negative(entry.place, box)
    if "segm" in iou_types or box is None:
        size = (image["height"], image["width"]) if "height" in image else None
        mask, _ = read_mask(entry, size)
        not_made = "segmentation" in entry.values and entry.values["segmentation"] is None  # beyond max_masks
        if mask is not None and size is None:
            raise BadEntry(f"{entry.place}: image {image['id']!r} has no height and width, which masks need")
        if mask is not None and size is not None:
            rle = _to_rle(mask, CocoImage(image["id"], None, size, 0), entry.place)
        if rle is None and box is None:
            raise BadEntry(f"{entry.place}: neither bbox nor segmentation")
        if rle is None and "segm" in iou_types and not not_made:
            raise BadEntry(
                f"{entry.place} (image {image['id']!r}): no segmentation, but masks are scored: give each a mask, or "
                "null where none was made; results of which none has a mask are scored by their boxes (in Python by "
                "iou_types=('bbox',))"
            )
    return {
        "id": new_id,
        "image_id": image["id"],
        "category_id": category,
        "bbox": list(box if box is not None else rle_codec.toBbox(rle).tolist()),
        "score": score,
        "iscrowd": 0,
        "segmentation": rle,
    }


def _to_rle(mask: Mask | None, image: CocoImage, place: str) -> dict | None:
    """Convert polygons or run lengths to compressed RLE; None where there is no mask."""
    if mask is None or image.size is None:
        return None
    try:
        if isinstance(mask, PolygonMask):
            return polygon_run_lengths(mask.polygons, *image.size)
        assert isinstance(mask, RunLengthMask)  # JSON holds no other
        return compressed_runs(mask.counts, *mask.size)
    except BadFile as error:
        raise BadEntry(f"{place}: segmentation: {error}") from None


def _image_entry(image: CocoImage) -> dict:
    entry: dict[str, Any] = {"id": image.key}
    if image.file_name is not None:
        entry["file_name"] = image.file_name
    if image.size is not None:
        entry["height"], entry["width"] = image.size
    return entry


def _warn_of_repeats(annotations: Sequence[dict], dataset: CocoDataset, name: str) -> None:
    """Warn of what is there twice: as it stands, a detector would have to find it twice."""
    files = Counter(image.file_name for image in dataset.images.values() if image.file_name)
    if twice := sum(files.values()) - len(files):
        log.warning("%s: %d images name a file that another names too: each is scored by itself", name, twice)
    objects = [one for one in annotations if not one["iscrowd"]]
    masks = [one["segmentation"]["counts"] if one["segmentation"] else None for one in objects]
    places = ((one["image_id"], one["category_id"], *one["bbox"]) for one in objects)
    if repeats := len(objects) - len(set(zip(places, masks))):
        log.warning(
            "%s: %d objects repeat the class, box and mask of another of their image: each is to be found",
            name,
            repeats,
        )


def _warn_of_misplaced(annotations: Sequence[dict], dataset: CocoDataset, name: str) -> None:
    _warn(_inside([one for one in annotations if dataset.images[one["image_id"]].size]), name)


def _inside(entries: Sequence[dict]) -> list[float]:
    """Return the share of each mask's pixels that lies in its box, rounded outwards."""
    shares = []
    for entry in entries:
        rle = entry["segmentation"]
        if rle is None or not (area := float(rle_codec.area(rle))):
            continue
        height, width = rle["size"]
        x1, y1, across, down = entry["bbox"]
        x1, x2 = max(math.floor(x1), 0), min(math.ceil(x1 + across), width)
        y1, y2 = max(math.floor(y1), 0), min(math.ceil(y1 + down), height)
        if x2 <= x1 or y2 <= y1:
            shares.append(0.0)
            continue
        box = rle_codec.frPyObjects([[x1, y1, x2, y1, x2, y2, x1, y2]], height, width)[0]
        shares.append(float(rle_codec.area(rle_codec.merge([rle, box], intersect=True))) / area)
    return shares


def _refuse_negative(place: str, box: tuple[float, float, float, float] | None) -> None:
    if box is not None and min(box[2:]) < 0:
        raise BadEntry(f"{place}: bbox: got {[*box]}, expected x, y, width, height, and no side below 0")


def _in_first_pixel(entries: Sequence[dict]) -> bool:
    """Tell whether boxes were divided by the sides of their pictures."""
    edges = [edge for x, y, width, height in (one["bbox"] for one in entries) for edge in (x, y, x + width, y + height)]
    return any(edges) and are_fractions(edges)


def _warn_of_boxes(results: Sequence[dict], images: dict, name: str) -> None:
    """Warn where boxes are fractions, or where most stick out of their images: x1, y1, x2, y2 in place of sides."""
    if _in_first_pixel(results):
        log.warning("%s: %s", name, in_fractions(len(results)))
    beyond = 0
    for result in results:
        image, (x, y, width, height) = images[result["image_id"]], result["bbox"]
        beyond += "width" in image and (x + width > image["width"] + 1 or y + height > image["height"] + 1)
    if 2 * beyond > len(results):
        log.warning(
            "%s: %d of %d boxes stick out of their image: are they x1, y1, x2, y2 where x, y, width, height are "
            "expected, or of another size of the images?",
            name,
            beyond,
            len(results),
        )


def _warn(shares: Sequence[float], name: str) -> None:
    misplaced = sum(share < 0.5 for share in shares)
    if 2 * misplaced > len(shares):
        log.warning("%s: %s", name, misplaced_masks(misplaced, len(shares)))


def _said(entry: Entry, name: str, number: str) -> str:
    return name if as_key(entry.values.get(name)) is not None else number


def _raise_if_any(faults: Sequence[str], heading: str) -> None:
    if faults:
        raise UserError(f"{heading}:\n{listed(faults)}")
