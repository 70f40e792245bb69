"""COCO box and mask average precision, by pycocotools' matching.

`evaluate_coco` needs no model: it scores any results file against any COCO annotation file. The numbers
are read from COCOeval's precision and recall arrays rather than from `summarize()`, which hard-codes 100
detections; with `max_detections=100` they are the same numbers to the last bit.
"""

import contextlib
import io
import logging
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as rle_codec
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tpu_retinamask.coco.reading import (
    GroundTruth,
    has_masks,
    load_ground_truth,
    load_results,
    named,
    read_json,
    warn_of_misplaced_results,
)
from tpu_retinamask.data.sources.coco_ids import order_of
from tpu_retinamask.errors import UserError, gin_param
from tpu_retinamask.evaluation.report import IOU_NAMES, ClassMetrics, Metrics, format_table
from tpu_retinamask.evaluation.thresholds import best_threshold

__all__ = ["ClassMetrics", "Metrics", "Scoring", "evaluate_coco", "format_table", "score_coco"]

log = logging.getLogger(__name__)


class Scoring(NamedTuple):
    """What the figures of an evaluation came from: both sides as they were read, and what was matched with what."""

    truth: GroundTruth
    detections: list[dict]  # with id, from 1
    category_ids: list  # in the order of `Metrics.per_class`
    matched: dict[str, COCOeval]  # 'bbox' and/or 'segm' -> matched and accumulated
    max_detections: int

    @property
    def main(self) -> str:
        """Return what thresholds, calibration and mistakes are told of: 'segm' where there are masks, else 'bbox'."""
        return list(self.matched)[-1]


def evaluate_coco(
    ground_truth: dict | str | os.PathLike,
    results: list[dict] | str | os.PathLike,
    *,
    iou_types: str | Sequence[str] | None = ("bbox", "segm"),
    max_detections: int = 100,
    progress: bool = False,
) -> Metrics:
    """Return the Metrics of `score_coco` alone."""
    return score_coco(ground_truth, results, iou_types=iou_types, max_detections=max_detections, progress=progress)[0]


def score_coco(
    ground_truth: dict | str | os.PathLike,
    results: list[dict] | str | os.PathLike,
    *,
    iou_types: str | Sequence[str] | None = ("bbox", "segm"),
    max_detections: int = 100,
    progress: bool = False,
) -> tuple[Metrics, Scoring]:
    """Score COCO results against COCO ground truth.

    Crowd regions (`iscrowd`) are neither wanted nor held against a detection, as COCO defines. An
    annotation without a mask (`"has_mask": 0`, no or an empty `segmentation`) counts as usual for 'bbox';
    for 'segm' its box becomes such a crowd region, and `Metrics.without_mask` counts it. As in detectron2,
    small, medium and large in 'segm' judge a detection by the area of its mask, not of its box. A result whose
    segmentation is null, of which no mask was made, counts for 'bbox' alone.

    Args:
        ground_truth: dict in the COCO instances format (polygons, run lengths), or the path of such a file.
        results: list of COCO result entries, possibly empty, or the path of such a file. Not modified.
        iou_types: 'bbox', 'segm' or both; None: both, or 'bbox' alone where no result has a mask.
        max_detections: best detections counted per image and class, at least 10. Raise it where an image
            may hold more than 100 objects of a class, or recall cannot reach 1.
        progress: log what is being scored and how long it took.

    Returns:
        (Metrics, Scoring). AP is the mean over IoU 0.50:0.05:0.95 and over the classes that have ground truth;
        nan where there is no ground truth, 0 where there are no detections.

    Raises:
        FileNotFoundError, ValueError: for files that are missing or malformed, results with unknown image
            or category ids, results without a segmentation when 'segm' is asked for.

    Source: https://cocodataset.org/#detection-eval
    """
    if iou_types is None:
        loaded = read_json(results, "results")
        boxes_alone = isinstance(loaded, list) and bool(loaded) and not has_masks(loaded)
        iou_types = ("bbox",) if boxes_alone else ("bbox", "segm")
        if boxes_alone:
            log.info("the results have no masks: box AP alone is worked out")
    else:
        loaded = results
        iou_types = (iou_types,) if isinstance(iou_types, str) else tuple(iou_types)
    if not iou_types or not set(iou_types) <= IOU_NAMES.keys():
        raise ValueError(f"evaluate_coco: iou_types={iou_types}, expected 'bbox', 'segm' or both")
    if max_detections < 10:
        raise UserError(f"evaluate_coco: max_detections={max_detections}, expected at least 10, for AR10")
    truth = load_ground_truth(ground_truth, with_masks="segm" in iou_types)
    detections = load_results(loaded, truth, iou_types, named("results", results))
    if "segm" in iou_types:
        warn_of_misplaced_results(detections, named("results", results))
    wanted = [annotation for annotation in truth.annotations if not annotation["iscrowd"]]
    without_mask = 0
    if "segm" in iou_types:
        without_mask = sum(annotation["segmentation"] is None for annotation in wanted)
    _warn(truth, wanted, without_mask, max_detections)

    category_ids = sorted(truth.categories, key=order_of)
    overall, ap, ap50, matched = {}, {}, {}, {}
    for iou_type in iou_types:
        start = time.monotonic()
        if progress:
            log.info(
                "Scoring %s: %d images, %d ground truths, %d detections",
                IOU_NAMES[iou_type],
                len(truth.images),
                len(wanted),
                len(detections),
            )
        scored = matched[iou_type] = run_cocoeval(truth, detections, iou_type, max_detections)
        overall[iou_type] = overall_numbers(scored)
        precision = scored.eval["precision"][..., 0, -1]  # [T, R, classes]: all areas, max_detections
        ap[iou_type] = [_mean(precision[:, :, k]) for k in range(len(category_ids))]
        ap50[iou_type] = [_mean(precision[0, :, k]) for k in range(len(category_ids))]
        if progress:
            log.info("Scoring %s took %.1f s", IOU_NAMES[iou_type], time.monotonic() - start)

    scoring = Scoring(truth, detections, category_ids, matched, max_detections)
    matches = [class_matches(matched[scoring.main], k) for k in range(len(category_ids))]
    truth_count = Counter(annotation["category_id"] for annotation in wanted)
    detection_count = Counter(detection["category_id"] for detection in detections)
    per_class = tuple(
        ClassMetrics(
            category_id=category_id,
            name=str(truth.categories[category_id].get("name", category_id)),
            ground_truths=truth_count[category_id],
            detections=detection_count[category_id],
            ap={iou_type: ap[iou_type][k] for iou_type in iou_types},
            ap50={iou_type: ap50[iou_type][k] for iou_type in iou_types},
            best=best_threshold(*matches[k]),
        )
        for k, category_id in enumerate(category_ids)
    )
    metrics = Metrics(
        overall=overall,
        per_class=per_class,
        images=len(truth.images),
        ground_truths=len(wanted),
        crowds=len(truth.annotations) - len(wanted),
        without_mask=without_mask,
        detections=len(detections),
        max_detections=max_detections,
        best=best_threshold(
            np.concatenate([np.zeros(0), *(scores for scores, _, _ in matches)]),
            np.concatenate([np.zeros(0, bool), *(found for _, found, _ in matches)]),
            sum(wanted for _, _, wanted in matches),
        ),
    )
    return metrics, scoring


def looked_at(scored: COCOeval, index: int) -> Iterator[dict[str, Any]]:
    """Yield what pycocotools matched in each image of a class, objects of every size; of none where there is nothing.

    Args:
        scored: matched.
        index: position of the class among the categories.
    """
    images = len(scored.params.imgIds)
    first = index * len(scored.params.areaRng) * images  # of all areas
    yield from (one for one in scored.evalImgs[first : first + images] if one is not None)


def class_matches(scored: COCOeval, index: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Return scores and whether they are found at IoU 0.5 of a class's detections that count, and what is wanted."""
    scores, found, wanted = [np.zeros(0)], [np.zeros(0, bool)], 0
    for one in looked_at(scored, index):
        counts = ~one["dtIgnore"][0].astype(bool)
        scores.append(np.asarray(one["dtScores"], float)[counts])
        found.append(one["dtMatches"][0][counts] > 0)
        wanted += int(np.sum(one["gtIgnore"] == 0))
    return np.concatenate(scores), np.concatenate(found), wanted


def run_cocoeval(
    truth: GroundTruth, detections: list[dict], iou_type: str, max_detections: int, *, classes_apart: bool = True
) -> COCOeval:
    """Match and accumulate with pycocotools, without what it prints.

    Args:
        truth: or a part of it.
        detections: of its images.
        iou_type: 'bbox' or 'segm'.
        max_detections: best detections that count, per image and class.
        classes_apart: False: an object may be found by a detection of any class.
    """
    annotations = [dict(annotation) for annotation in truth.annotations]
    detections = [dict(detection) for detection in detections]
    if iou_type == "segm":
        for annotation in annotations:
            if annotation["segmentation"] is None:
                image = truth.images[annotation["image_id"]]
                annotation["segmentation"] = _box_as_rle(annotation["bbox"], image)
                annotation["iscrowd"] = 1
        detections = [detection for detection in detections if detection["segmentation"] is not None]
        for detection in detections:
            detection["area"] = float(rle_codec.area(detection["segmentation"]))
    else:
        for detection in detections:
            detection["area"] = detection["bbox"][2] * detection["bbox"][3]
    with contextlib.redirect_stdout(io.StringIO()):
        scored = COCOeval(_coco(truth, annotations), _coco(truth, detections), iou_type)
        scored.params.maxDets = [1, 10, max_detections]
        scored.params.useCats = int(classes_apart)
        scored.evaluate()
        scored.accumulate()
    return scored


def _coco(truth: GroundTruth, annotations: list[dict]) -> COCO:
    # Not COCO.loadRes: it fails on an empty list, modifies the caller's entries, judges masks by box area.
    coco = COCO()
    coco.dataset = {
        "images": list(truth.images.values()),
        "categories": list(truth.categories.values()),
        "annotations": annotations,
    }
    coco.createIndex()
    return coco


def _box_as_rle(box, image: dict) -> dict:
    x, y, width, height = box
    polygon = [x, y, x + width, y, x + width, y + height, x, y + height]
    return rle_codec.frPyObjects([polygon], int(image["height"]), int(image["width"]))[0]


def overall_numbers(scored: COCOeval) -> dict[str, float]:
    """Read the twelve COCO numbers from COCOeval's arrays."""
    precision = scored.eval["precision"]  # [T, R, classes, areas, max_dets]
    recall = scored.eval["recall"]  # [T, classes, areas, max_dets]
    iou75 = int(np.argmin(np.abs(scored.params.iouThrs - 0.75)))
    areas = {"": 0, "small": 1, "medium": 2, "large": 3}
    numbers = {
        "AP": _mean(precision[:, :, :, 0, -1]),
        "AP50": _mean(precision[0, :, :, 0, -1]),
        "AP75": _mean(precision[iou75, :, :, 0, -1]),
    }
    numbers.update({f"AP{name}": _mean(precision[:, :, :, a, -1]) for name, a in areas.items() if name})
    numbers.update({name: _mean(recall[:, :, 0, m]) for m, name in enumerate(("AR1", "AR10", "ARmax"))})
    numbers.update({f"AR{name}": _mean(recall[:, :, a, -1]) for name, a in areas.items() if name})
    return numbers


def _mean(values: np.ndarray) -> float:
    """Average what is defined; COCOeval marks classes without ground truth by -1."""
    values = values[values > -1]
    return float(np.mean(values)) if values.size else float("nan")


def _warn(truth: GroundTruth, wanted: list[dict], without_mask: int, max_detections: int) -> None:
    if not wanted:
        log.warning("The %d images hold no ground truth: AP and AR are undefined", len(truth.images))
    if without_mask:
        log.warning(
            "%d of %d ground truths have no mask: mask AP ignores them and what lies on them",
            without_mask,
            len(wanted),
        )
    per_image = Counter((annotation["image_id"], annotation["category_id"]) for annotation in wanted)
    most = max(per_image.values(), default=0)
    if most > max_detections:
        log.warning(
            "An image has %d objects of one class, but only %d detections count: recall cannot reach 1; "
            "count more by %s",
            most,
            max_detections,
            gin_param("evaluate.max_detections", most),
        )
