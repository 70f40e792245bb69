"""The numbers of an evaluation, as a table to read and as a JSON file to compare."""

import collections
import dataclasses
import math
import textwrap
from collections.abc import Mapping, Sequence

from tpu_retinamask.evaluation.thresholds import Threshold
from tpu_retinamask.files import json_text

IOU_NAMES = {"bbox": "box", "segm": "mask"}  # pycocotools' word -> the reader's word
_WIDTH = 110


@dataclasses.dataclass(frozen=True)
class ClassMetrics:
    """What was measured for one class."""

    category_id: int
    name: str
    ground_truths: int  # crowd regions not counted
    detections: int
    ap: dict[str, float]  # 'bbox' and/or 'segm' -> AP; nan where the class has no ground truth
    ap50: dict[str, float]
    best: Threshold | None  # at IoU 0.5, of masks where there are masks; None: no ground truth, or none found


@dataclasses.dataclass(frozen=True)
class Metrics:
    """What was measured, over all classes and for each; AP and AR in [0, 1], nan where undefined."""

    overall: dict[str, dict[str, float]]  # 'bbox' and/or 'segm' -> {'AP': ..., 'AP50': ..., 'AR1': ...}
    per_class: tuple[ClassMetrics, ...]  # in ascending category id
    images: int
    ground_truths: int  # crowd regions not counted
    crowds: int
    without_mask: int  # ground truths that have a box only; ignored regions in 'segm'
    detections: int
    max_detections: int  # best detections that count, per image and class
    best: Threshold | None = None  # one for all classes

    def class_keys(self) -> list[str]:
        """Return a name of its own for each class: two categories may share one, a key may not."""
        counts = collections.Counter(row.name for row in self.per_class)
        return [row.name if counts[row.name] == 1 else f"{row.name} ({row.category_id})" for row in self.per_class]

    def flat(self) -> dict[str, float]:
        """Return one number a key: 'segm/AP50', 'segm/AP50/nucleus', 'ground_truths', ..."""
        numbers = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("overall", "per_class", "best")
        }
        numbers.update(_flat_threshold(self.best, ""))
        for iou_type, values in self.overall.items():
            numbers.update({f"{iou_type}/{name}": value for name, value in values.items()})
        for name, row in zip(self.class_keys(), self.per_class):
            numbers[f"ground_truths/{name}"] = row.ground_truths
            numbers[f"detections/{name}"] = row.detections
            for iou_type in self.overall:
                numbers[f"{iou_type}/AP/{name}"] = row.ap[iou_type]
                numbers[f"{iou_type}/AP50/{name}"] = row.ap50[iou_type]
            numbers.update(_flat_threshold(row.best, f"/{name}"))
        return numbers


def format_table(metrics: Metrics, class_names: Mapping[int, str] | Sequence[str | None] | None = None) -> str:
    """Lay the metrics out as an aligned text table.

    Args:
        metrics: what `evaluate_coco` returned.
        class_names: names to print instead of those in the ground truth: a mapping of category id to name,
            or a sequence in ascending category id, one name a category.

    Returns:
        Several lines: counts, one overall row per IoU type, one row per class with ground truth, and the
        classes without ground truth gathered in one paragraph. An undefined number is printed as '-'.

    Raises:
        ValueError: if a sequence of names has another length than there are categories.
    """
    names = _class_names(metrics, class_names)
    lines = [
        f"{metrics.images} images, {metrics.ground_truths} ground truths, {metrics.crowds} crowd regions, "
        f"{metrics.detections} detections; at most {metrics.max_detections} per image and class count"
    ]
    if metrics.without_mask:
        lines.append(f"{metrics.without_mask} ground truths have no mask; mask AP ignores their boxes")
    if not metrics.ground_truths:
        lines.append("There is no ground truth, so AP and AR are undefined.")
    columns = list(next(iter(metrics.overall.values())))
    rows = [[""] + columns]
    for iou_type, values in metrics.overall.items():
        rows.append([IOU_NAMES[iou_type]] + [_number(values[column]) for column in columns])
    lines += ["", *_align(rows), ""]

    present = [(name, row) for name, row in zip(names, metrics.per_class) if row.ground_truths]
    absent = [(name, row) for name, row in zip(names, metrics.per_class) if not row.ground_truths]
    if present:
        rows = [["class", "ground truths", "detections"]]
        for iou_type in metrics.overall:
            rows[0] += [f"{IOU_NAMES[iou_type]} AP", f"{IOU_NAMES[iou_type]} AP50"]
        rows[0] += ["best F1", "above score"]
        for name, row in present:
            cells = [name, str(row.ground_truths), str(row.detections)]
            for iou_type in metrics.overall:
                cells += [_number(row.ap[iou_type]), _number(row.ap50[iou_type])]
            cells += [_number(row.best.f1), _number(row.best.score)] if row.best else ["-", "-"]
            rows.append(cells)
        lines += _align(rows)
    if absent:
        listed = ", ".join(f"{name} ({row.detections} detections)" if row.detections else name for name, row in absent)
        heading = f"No ground truth, hence no part in the means, for {len(absent)} of {len(names)} classes: "
        lines += textwrap.wrap(heading + listed, _WIDTH, subsequent_indent="  ")
    if metrics.best:
        best, kind = metrics.best, "masks" if "segm" in metrics.overall else "boxes"
        lines += ["", *textwrap.wrap(
            f"One threshold for all: {kind} that score above {best.score:.3f} are best balanced, at IoU 0.5: precision "
            f"{best.precision:.3f}, recall {best.recall:.3f}, F1 {best.f1:.3f}", _WIDTH
        )]  # fmt: skip
    return "\n".join(lines).rstrip() + "\n"


def metrics_json(metrics: Metrics) -> str:
    """Return `metrics.flat()` as a JSON object; undefined numbers become null."""
    return json_text({key: None if math.isnan(value) else value for key, value in metrics.flat().items()}, indent=1)


def _flat_threshold(best: Threshold | None, of: str) -> dict[str, float]:
    values = best or [math.nan] * len(Threshold._fields)
    names = ("threshold", *Threshold._fields[1:])
    return {f"{name}{of}": value for name, value in zip(names, values)}


def _class_names(metrics: Metrics, class_names) -> list[str]:
    if class_names is None:
        return [row.name for row in metrics.per_class]
    if isinstance(class_names, Mapping):
        return [class_names.get(row.category_id, row.name) for row in metrics.per_class]
    names = [name for name in class_names if name is not None]  # an id that no class has is no category
    if len(names) != len(metrics.per_class):
        raise ValueError(
            f"format_table: got {len(names)} class names for {len(metrics.per_class)} categories in "
            "the ground truth; give one a category in ascending id, or a mapping of category id to name"
        )
    return names


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _align(rows: list[list[str]]) -> list[str]:
    """Pad cells so that columns line up: the first to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join([row[0].ljust(widths[0])] + [cell.rjust(w) for cell, w in zip(row[1:], widths[1:])]) for row in rows
    ]
