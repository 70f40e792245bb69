"""The same scores by parts: curves of precision over recall, pictures by how many objects they show."""

from collections import Counter
from typing import NamedTuple

import numpy as np

from tpu_retinamask.coco.scores import Scoring, overall_numbers, run_cocoeval

# Objects of a picture, up to which each group goes.
COUNTS = (2, 5, 10, 20, 50, 100)


class CountGroup(NamedTuple):
    """Pictures with about as many objects."""

    least: int
    most: int  # that a picture of the group has
    images: int
    objects: int
    ap: dict[str, dict[str, float]]  # 'bbox' and/or 'segm' -> as `Metrics.overall`


def by_object_count(scoring: Scoring) -> list[CountGroup]:
    """Score the pictures that have up to 2, 5, 10, 20, 50, 100 objects and more, each group by itself.

    A group's AP is that of an evaluation of its pictures alone, so that the groups need not have all classes. Pictures
    without an object have none.
    """
    wanted = [one for one in scoring.truth.annotations if not one["iscrowd"]]
    objects = Counter(one["image_id"] for one in wanted)
    groups = []
    for low, high in zip((0, *COUNTS), (*COUNTS, max(objects.values(), default=0))):
        chosen = {image_id for image_id, count in objects.items() if low < count <= high}
        if not chosen:
            continue
        part = scoring.truth._replace(
            images={image_id: image for image_id, image in scoring.truth.images.items() if image_id in chosen},
            annotations=[one for one in scoring.truth.annotations if one["image_id"] in chosen],
        )
        detections = [one for one in scoring.detections if one["image_id"] in chosen]
        counts = [objects[image_id] for image_id in chosen]
        ap = {
            iou_type: overall_numbers(run_cocoeval(part, detections, iou_type, scoring.max_detections))
            for iou_type in scoring.matched
        }
        groups.append(CountGroup(min(counts), max(counts), len(chosen), sum(counts), ap))
    return groups


def precision_by_recall(scoring: Scoring) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the curves that average precision is the mean of.

    Returns:
      (recall [R], IoU [T], precision [T, R, classes] of `scoring.main`, nan for classes without ground truth).
    """
    scored = scoring.matched[scoring.main]
    precision = np.array(scored.eval["precision"][..., 0, -1], np.float64)  # all areas, max_detections
    return scored.params.recThrs, scored.params.iouThrs, np.where(precision > -1, precision, np.nan)
