"""What was found, missed, taken for another class or seen where nothing is, picture by picture.

The matching is that of the figures: a detection has found what pycocotools matched it with at IoU 0.5, so that those of
one class here add up to its precision and recall at its threshold. What is left of both sides is then matched once more
without regard to the class: these are confusions.
"""

import collections
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as rle_codec

from tpu_retinamask.coco.scores import Scoring, looked_at, run_cocoeval

GOOD_MASK = 0.75  # IoU of a mask with the one that is wanted, from which it is none to look at


class Pair(NamedTuple):
    """A detection and the object that it was matched with."""

    detection: dict
    truth: dict
    iou: float  # of masks, or of boxes, whichever were matched


class PictureFindings(NamedTuple):
    """What became of the objects of one picture, and of the detections that reached the threshold of their class."""

    image_id: Any
    found: list[Pair]
    confused: list[Pair]
    wrong: list[dict]  # detections of nothing
    missed: list[dict]  # objects

    @property
    def mistakes(self) -> int:
        """Count them; a confusion is one."""
        return len(self.confused) + len(self.wrong) + len(self.missed)

    @property
    def f1(self) -> float:
        """Return 2 PR / (P + R), 1 where nothing was there and nothing was found."""
        found = 2 * len(self.found)
        total = found + 2 * len(self.confused) + len(self.wrong) + len(self.missed)
        return found / total if total else 1.0


def find(scoring: Scoring, least: Sequence[float]) -> list[PictureFindings]:
    """Return what was found in each picture, in the order of their ids in the annotations.

    Args:
      scoring: of `score_coco`.
      least: score from which a detection counts, of each class in the order of `scoring.category_ids`.
    """
    found, wrong, missed = (collections.defaultdict(list) for _ in range(3))
    for pair, detection, truth in _matched(scoring, scoring.main, least):
        if pair is not None:
            found[pair.truth["image_id"]].append(pair)
        elif detection is not None:
            wrong[detection["image_id"]].append(detection)
        elif truth is not None:
            missed[truth["image_id"]].append(truth)
    confused = _confused(scoring, wrong, missed)
    taken = {id(one) for pairs in confused.values() for pair in pairs for one in (pair.detection, pair.truth)}
    return [
        PictureFindings(
            image_id,
            found[image_id],
            confused.get(image_id, []),
            [one for one in wrong[image_id] if id(one) not in taken],
            [one for one in missed[image_id] if id(one) not in taken],
        )
        for image_id in scoring.truth.images
    ]


def bad_masks(scoring: Scoring, least: Sequence[float]) -> list[Pair]:
    """Return detections whose box found an object and whose mask fits it badly, IoU under `GOOD_MASK`, the worst first.

    Args:
      scoring: of `score_coco`, of boxes and masks; else there is nothing to return.
      least: as of `find`.
    """
    if set(scoring.matched) != {"bbox", "segm"}:
        return []
    pairs = [pair for pair, _, _ in _matched(scoring, "bbox", least) if pair is not None]
    both = [pair for pair in pairs if pair.detection["segmentation"] and pair.truth["segmentation"]]
    overlaps = [pair._replace(iou=_iou(pair.detection, pair.truth, "segm")) for pair in both]
    return sorted((pair for pair in overlaps if pair.iou < GOOD_MASK), key=lambda pair: pair.iou)


def confusion_matrix(findings: Sequence[PictureFindings], category_ids: Sequence[Any]) -> np.ndarray:
    """Return how often each class was taken for each.

    Returns:
      [n + 1, n + 1] int64: rows are the classes of the objects and, last, nothing; columns those of the detections and,
      last, that there was none.
    """
    number = {category_id: k for k, category_id in enumerate(category_ids)}
    counts = np.zeros((len(number) + 1, len(number) + 1), np.int64)
    for one in findings:
        for pair in [*one.found, *one.confused]:
            counts[number[pair.truth["category_id"]], number[pair.detection["category_id"]]] += 1
        for detection in one.wrong:
            counts[-1, number[detection["category_id"]]] += 1
        for truth in one.missed:
            counts[number[truth["category_id"]], -1] += 1
    return counts


def _matched(
    scoring: Scoring, iou_type: str, least: Sequence[float]
) -> Iterator[tuple[Pair | None, dict | None, dict | None]]:
    """Yield, of each class at IoU 0.5, (Pair, None, None), (None, a wrong detection, None) or (None, None, a miss)."""
    truths = {one["id"]: one for one in scoring.truth.annotations}
    detections = {one["id"]: one for one in scoring.detections}
    for k, threshold in enumerate(least):
        for one in looked_at(scoring.matched[iou_type], k):
            held: set[int] = set()
            ignored, matched = one["dtIgnore"][0], one["dtMatches"][0]
            for number, ignore, match in zip(one["dtIds"], ignored, matched):
                detection = detections[number]
                if ignore or detection["score"] < threshold:
                    continue
                if match:
                    truth = truths[int(match)]
                    held.add(truth["id"])
                    yield Pair(detection, truth, _iou(detection, truth, iou_type)), None, None
                else:
                    yield None, detection, None
            for number, ignore in zip(one["gtIds"], one["gtIgnore"]):
                if not ignore and number not in held:
                    yield None, None, truths[number]


def _confused(
    scoring: Scoring, wrong: Mapping[Any, list[dict]], missed: Mapping[Any, list[dict]]
) -> dict[Any, list[Pair]]:
    """Match what is left of both sides whatever its class; return the pairs of each picture."""
    both = {image_id: image for image_id, image in scoring.truth.images.items() if wrong[image_id] and missed[image_id]}
    if not both:
        return {}
    left = scoring.truth._replace(images=both, annotations=[one for image_id in both for one in missed[image_id]])
    detections = [one for image_id in both for one in wrong[image_id]]
    scored = run_cocoeval(left, detections, scoring.main, max(10, len(detections)), classes_apart=False)
    truths = {one["id"]: one for one in left.annotations}
    by_number = {one["id"]: one for one in detections}
    pairs: dict[Any, list[Pair]] = collections.defaultdict(list)
    for one in looked_at(scored, 0):
        for number, match in zip(one["dtIds"], one["dtMatches"][0]):
            if match:
                detection, truth = by_number[number], truths[int(match)]
                pairs[truth["image_id"]].append(Pair(detection, truth, _iou(detection, truth, scoring.main)))
    return pairs


def _iou(detection: dict, truth: dict, iou_type: str) -> float:
    field = "segmentation" if iou_type == "segm" else "bbox"
    if not detection[field] or not truth[field]:
        return math.nan
    return float(np.asarray(rle_codec.iou([detection[field]], [truth[field]], [0])).reshape(-1)[0])
