"""Results in the numbering of a COCO file: its image ids by file name, its category ids by class name."""

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence

from tpu_retinamask.coco.names import FileNames, unique_matches
from tpu_retinamask.coco.reading import named, read_json
from tpu_retinamask.data.sources.coco_entries import plain_path, read_dataset
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
      images: our image id -> path of the image; matched by the last part of it, and by as many folders before as tell
        it from the others.
      class_names: name of each of our category ids; None: an output that no class uses, left out.

    Returns:
      (the results with the file's ids, the file's content without the images that were not run).

    Raises:
      UserError: image or class names that the file does not have, or has twice.
    """
    content = read_json(ground_truth, "ground truth")
    dataset, _ = read_dataset(
        content, named("ground truth", ground_truth), with_masks=False
    )  # what is wrong is told by the scoring
    files = FileNames({key: image.file_name for key, image in dataset.images.items() if image.file_name})
    repeated = [said for said, count in Counter(dataset.categories.values()).items() if count > 1]
    if repeated:
        raise UserError(f"the COCO file has the category {repeated[0]!r} twice, so names cannot tell which is which")
    category_ids = {said: key for key, said in dataset.categories.items()}
    new_ids, missing = unique_matches(files, {key: plain_path(path) for key, path in images.items()})
    _refuse_missing(missing, list(files.names.values()), "image")
    _refuse_missing(
        [said for said in class_names if said is not None and said not in category_ids], list(category_ids), "category"
    )
    run = {str(key) for key in new_ids.values()}
    if left_out := len(dataset.images) - len(run):
        log.warning(
            "%d of the %d images of the COCO file are not among the annotated images and are not scored",
            left_out,
            len(dataset.images),
        )
    numbers = {dataset.images[key].number for key in new_ids.values()}
    elsewhere = {found.number for found in dataset.objects if str(found.image) not in run}
    truth = dict(
        content,
        images=[entry for number, entry in enumerate(content["images"]) if number in numbers],
        annotations=[entry for number, entry in enumerate(content.get("annotations") or []) if number not in elsewhere],
    )
    return [
        dict(entry, image_id=new_ids[entry["image_id"]], category_id=category_ids[class_names[entry["category_id"]]])
        for entry in results
        if class_names[entry["category_id"]] is not None
    ], truth


def _refuse_missing(missing: Sequence[str], known: Sequence[str], what: str) -> None:
    missing = sorted(set(missing))
    if missing:
        more = f" and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
        raise UserError(
            f"the COCO file lacks {len(missing)} {what} names: {', '.join(missing[:_LISTED])}{more}; it has "
            f"{len(known)}, such as {', '.join(known[:3])}"
        )
