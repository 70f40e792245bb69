"""Results in the numbering of a COCO file: its image ids by file name, its category ids by class name."""

import logging
import os
import posixpath
from collections.abc import Mapping, Sequence

from tpu_retinamask.coco.reading import read_json
from tpu_retinamask.errors import UserError

log = logging.getLogger(__name__)
_LISTED = 20  # missing names in one error


def renumber_results(
    results: Sequence[dict],
    ground_truth: dict | str | os.PathLike,
    images: Mapping[int, str],
    class_names: Sequence[str | None],
) -> tuple[list[dict], dict]:
    """Give results the ids of a COCO file.

    Args:
      results: COCO result entries with our own ids.
      ground_truth: dict in the COCO instances format, or the path of such a file.
      images: our image id -> path of the image; matched by the last part of it.
      class_names: name of each of our category ids; None: an output that no class uses, left out.

    Returns:
      (the results with the file's ids, the file's content without the images that were not run).

    Raises:
      UserError: image or class names that the file does not have, or has twice.
    """
    dataset = read_json(ground_truth, "ground truth")
    image_ids = _by_name(((entry["file_name"], entry["id"]) for entry in dataset["images"]), "image")
    category_ids = _by_name(((entry["name"], entry["id"]) for entry in dataset["categories"]), "category")
    wanted = {key: posixpath.basename(path) for key, path in images.items()}
    _all_known(wanted.values(), image_ids, "image")
    _all_known([name for name in class_names if name is not None], category_ids, "category")
    new_ids = {key: image_ids[name] for key, name in wanted.items()}
    run = set(new_ids.values())
    if left_out := len(dataset["images"]) - len(run):
        log.warning(
            "%d of the %d images of the COCO file are not among the annotated images and are not scored",
            left_out,
            len(dataset["images"]),
        )
    truth = dict(
        dataset,
        images=[entry for entry in dataset["images"] if entry["id"] in run],
        annotations=[entry for entry in dataset.get("annotations", []) if entry["image_id"] in run],
    )
    return [
        dict(entry, image_id=new_ids[entry["image_id"]], category_id=category_ids[class_names[entry["category_id"]]])
        for entry in results
        if class_names[entry["category_id"]] is not None
    ], truth


def _by_name(pairs, what: str) -> dict:
    found = {}
    for name, key in pairs:
        name = posixpath.basename(name) if what == "image" else name
        if name in found:
            raise UserError(f"the COCO file has the {what} {name!r} twice, so names cannot tell which is which")
        found[name] = key
    return found


def _all_known(names, known: Mapping, what: str):
    missing = sorted(set(names) - known.keys())
    if missing:
        more = f" and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
        raise UserError(
            f"the COCO file lacks {len(missing)} {what} names: {', '.join(missing[:_LISTED])}{more}; it has "
            f"{len(known)}, such as {', '.join(list(known)[:3])}"
        )
