"""The report of an evaluation: its figures, where they come from, and the pictures behind them."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tpu_retinamask.coco.breakdowns import CountGroup, by_object_count, precision_by_recall
from tpu_retinamask.coco.findings import confusion_matrix, find
from tpu_retinamask.coco.scores import Scoring, class_matches
from tpu_retinamask.evaluation.calibration import BINS, Calibration, calibrate
from tpu_retinamask.evaluation.class_thresholds import THRESHOLDS_FILE, least_scores
from tpu_retinamask.evaluation.report import IOU_NAMES, Metrics
from tpu_retinamask.reports import charts
from tpu_retinamask.reports.crops import Pixels
from tpu_retinamask.reports.mistakes import mistake_sections
from tpu_retinamask.reports.page import Section, figure, page, paragraph, row, shown, table, tiles
from tpu_retinamask.reports.settings import ReportSettings

MOST_CURVES = 12  # of classes in one chart: more are not told apart
MOST_CLASSES = 60  # of a confusion matrix and of a bar chart
MOST_CONFUSIONS = 20  # pairs of classes that are listed


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """What a report of an evaluation is made of."""

    metrics: Metrics
    scoring: Scoring
    pixels: Pixels  # of the pictures, by their ids in the annotations
    about: Mapping[str, str]  # what was scored, by what it is


def evaluation_page(evaluated: Evaluated, settings: ReportSettings) -> str:
    """Return the text of the report."""
    metrics, scoring = evaluated.metrics, evaluated.scoring
    names, least = metrics.class_keys(), least_scores(metrics)
    matches = [class_matches(scoring.matched[scoring.main], k) for k in range(len(names))]
    by_class = [calibrate(scores, found) for scores, found, _ in matches]
    whole = calibrate(
        np.concatenate([np.zeros(0), *(scores for scores, _, _ in matches)]),
        np.concatenate([np.zeros(0, bool), *(found for _, found, _ in matches)]),
    )
    findings = find(scoring, least)
    confusion = confusion_matrix(findings, scoring.category_ids)
    groups = by_object_count(scoring)
    sections = [
        _summary(metrics, whole),
        _classes(metrics, names, least, by_class),
        _curves(scoring, metrics, names),
        _confusion(confusion, names),
        _sizes(metrics, groups),
        _calibration(whole),
        *mistake_sections(scoring, findings, least, names, evaluated.pixels, settings),
        Section("What was scored", table(["", ""], evaluated.about.items())),
    ]
    figures = {
        "metrics": metrics.flat(),
        "thresholds": dict(zip(names, least)),
        "confusion": {"classes": names, "counts": confusion.tolist()},
        "calibration": {"error": whole.error, "bins": [one._asdict() for one in whole.bins]},
        "calibration_errors": {name: one.error for name, one in zip(names, by_class)},
        "object_counts": [one._asdict() for one in groups],
    }
    return page("Evaluation", ", ".join(evaluated.about.values()), sections, figures)


def _kind(metrics: Metrics) -> str:
    return "masks" if "segm" in metrics.overall else "boxes"


def _summary(metrics: Metrics, whole: Calibration) -> Section:
    counts = [
        ("images", metrics.images),
        ("ground truths", metrics.ground_truths),
        ("crowd regions", metrics.crowds),
        ("detections", metrics.detections),
        ("calibration error", whole.error),
    ]
    columns = list(next(iter(metrics.overall.values())))
    rows = [
        [IOU_NAMES[iou_type], *(values[column] for column in columns)] for iou_type, values in metrics.overall.items()
    ]
    said = (
        f"AP is the mean over IoU 0.50 to 0.95 and over the classes with ground truth; at most "
        f"{metrics.max_detections} detections an image and class count."
    )
    if metrics.best:
        best = metrics.best
        said += (
            f" One threshold for all: {_kind(metrics)} that score above {best.score:.3f} are best balanced, at IoU "
            f"0.5: precision {best.precision:.3f}, recall {best.recall:.3f}, F1 {best.f1:.3f}."
        )
    if metrics.without_mask:
        said += f" {metrics.without_mask} ground truths have no mask: mask AP ignores them."
    return Section("Summary", tiles(counts) + table(["", *columns], rows) + paragraph(said))


def _classes(
    metrics: Metrics, names: Sequence[str], least: Sequence[float], by_class: Sequence[Calibration]
) -> Section:
    kinds = list(metrics.overall)
    header = ["class", "ground truths", "detections"]
    header += [f"{IOU_NAMES[kind]} {name}" for kind in kinds for name in ("AP", "AP50")]
    header += ["threshold", "precision", "recall", "F1", "calibration error"]
    rows = []
    for name, one, score, calibration in zip(names, metrics.per_class, least, by_class):
        scores = [value for kind in kinds for value in (one.ap[kind], one.ap50[kind])]
        best = [one.best.precision, one.best.recall, one.best.f1] if one.best else ["-", "-", "-"]
        rows.append([name, one.ground_truths, one.detections, *scores, score, *best, calibration.error])
    said = (
        f"The threshold is the score above which F1 of the {_kind(metrics)} at IoU 0.5 is largest; a class of which "
        f"nothing was found has that of all. {THRESHOLDS_FILE} beside this file has them, for predict and export "
        "--thresholds."
    )
    return Section("Classes", paragraph(said) + table(header, rows))


def _curves(scoring: Scoring, metrics: Metrics, names: Sequence[str]) -> Section:
    recall, ious, precision = precision_by_recall(scoring)
    wanted = [one.ground_truths for one in metrics.per_class]
    largest = sorted((k for k, count in enumerate(wanted) if count), key=lambda k: -wanted[k])[:MOST_CURVES]
    across, up = charts.Axis("recall"), charts.Axis("precision")
    by_class = [
        charts.Series(names[k], list(zip(recall, precision[0, :, k])), charts.COLOURS[place % len(charts.COLOURS)])
        for place, k in enumerate(largest)
    ]
    present = [k for k, count in enumerate(wanted) if count and not np.isnan(precision[0, :, k]).any()]
    by_iou = [
        charts.Series(f"IoU {iou:.2f}", list(zip(recall, precision[t][:, present].mean(axis=1))), charts.COLOURS[place])
        for place, (t, iou) in enumerate(list(enumerate(ious))[::2] if present else [])
    ]
    some = f" of the {len(largest)} classes with the most objects" if len(present) > len(largest) else " of each class"
    kind = _kind(metrics)
    markup = row(
        [
            figure(charts.lines(by_class, across, up), f"{kind} at IoU 0.5,{some}"),
            figure(charts.lines(by_iou, across, up), f"{kind}, mean over the classes, by IoU"),
        ]
    )
    return Section("Precision and recall", markup)


def _confusion(counts: np.ndarray, names: Sequence[str]) -> Section:
    said = (
        "Rows: what the objects are; columns: what was seen, from the threshold of its class on, at IoU 0.5. The last "
        "column counts objects that were missed, the last row detections of nothing. An object that a detection of its "
        "own class has found is no confusion, whatever else was seen there."
    )
    chosen = list(range(len(names)))
    if len(names) > MOST_CLASSES:
        apart = counts - np.diag(np.diag(counts))
        chosen = sorted(np.argsort(-(apart.sum(0) + apart.sum(1))[:-1], kind="stable")[:MOST_CLASSES].tolist())
        said += f" {MOST_CLASSES} of {len(names)} classes are shown, those with the most mistakes."
    picked = [*chosen, len(names)]
    labels = [names[k] for k in chosen]
    markup = paragraph(said) + charts.heat_map(
        [*labels, "nothing there"],
        [*labels, "missed"],
        counts[np.ix_(picked, picked)].tolist(),
        labels=("object", "seen as"),
    )
    pairs = [(int(counts[i, j]), i, j) for i, j in np.argwhere(counts[:-1, :-1]) if i != j]
    pairs = sorted(pairs, key=lambda pair: -pair[0])[:MOST_CONFUSIONS]
    if pairs:
        markup += table(["object", "seen as", "times"], [[names[i], names[j], count] for count, i, j in pairs])
    return Section("Confusion matrix", markup)


def _sizes(metrics: Metrics, groups: Sequence[CountGroup]) -> Section:
    parts = []
    for kind, values in metrics.overall.items():
        rows = [(size, values[f"AP{size}"]) for size in ("small", "medium", "large")]
        caption = f"{IOU_NAMES[kind]} AP by the size of the object: small under 32 x 32 pixels, large over 96 x 96"
        parts.append(figure(charts.bars(rows, form="{:.3f}", most=1.0, label=caption), caption))
    for kind in metrics.overall:
        rows = [(_objects(one), one.ap[kind]["AP"]) for one in groups]
        caption = f"{IOU_NAMES[kind]} AP by the objects of a picture"
        parts.append(figure(charts.bars(rows, form="{:.3f}", most=1.0, label=caption), caption))
    header = ["objects of a picture", "images", "objects"]
    header += [f"{IOU_NAMES[kind]} {name}" for kind in metrics.overall for name in ("AP", "AP50", "ARmax")]
    rows = [
        [
            _objects(one),
            one.images,
            one.objects,
            *(one.ap[kind][name] for kind in metrics.overall for name in ("AP", "AP50", "ARmax")),
        ]
        for one in groups
    ]
    return Section("Size and number of objects", row(parts) + table(header, rows))


def _objects(group: CountGroup) -> str:
    return f"{group.least} to {group.most}" if group.most > group.least else str(group.least)


def _calibration(whole: Calibration) -> Section:
    said = (
        "Of detections of one score, which share is right at IoU 0.5? Columns on the dashed line: scores mean what "
        f"they say; below: they promise too much. Expected calibration error over all detections: {shown(whole.error)}."
    )
    edges = [number / BINS for number in range(BINS + 1)]
    counts = [one.count for one in whole.bins]
    score = charts.Axis("score")
    most = charts.Axis("detections", 0, max(*counts, 1))
    right = [one.found for one in whole.bins]
    markup = paragraph(said) + row(
        [
            figure(
                charts.columns(edges, right, score, charts.Axis("share that is right"), diagonal=True), "Reliability"
            ),
            figure(charts.columns(edges, [float(count) for count in counts], score, most), "Detections by score"),
        ]
    )
    rows: list[list[Any]] = [
        [f"{one.low:.1f} to {one.high:.1f}", one.count, one.score, one.found] for one in whole.bins
    ]
    return Section("Calibration", markup + table(["score", "detections", "mean score", "share right"], rows))
