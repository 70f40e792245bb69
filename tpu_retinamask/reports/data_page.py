"""The report of annotated images: what they hold, how anchors fit them, and what may be wrong with them."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from tpu_retinamask.data.annotated_image import AnnotatedImage
from tpu_retinamask.data.annotations.class_names import ClassNames
from tpu_retinamask.data.annotations.mask_doubts import mask_doubts
from tpu_retinamask.data.image_arrays import ImageArrays, image_arrays
from tpu_retinamask.data.stream.canvas_boxes import MOST_COMPARED, boxes_on_canvas
from tpu_retinamask.data.stream.canvases import filled_shares
from tpu_retinamask.data.stream.pipeline import InputPipeline
from tpu_retinamask.data.stream.summary import said_of_canvases
from tpu_retinamask.ops.anchors import AnchorGrid
from tpu_retinamask.planning.anchor_choice import AnchorChoice, choose_anchors, has_levels_of_choice, some_of
from tpu_retinamask.reports import charts
from tpu_retinamask.reports.crops import DrawnObject, around, data_uri, drawn, read_or_none, shrunk, side_by_side
from tpu_retinamask.reports.page import Section, code, figure, more_of, page, paragraph, picture, row, table, tiles
from tpu_retinamask.reports.samples import drawn_sample
from tpu_retinamask.reports.settings import ReportSettings
from tpu_retinamask.structures import Batch

MOST_CLASSES = 60  # of a bar chart; the table has all
MOST_POINTS = 4000  # boxes of a chart, evenly among all
COLUMNS = 24  # of a histogram


@dataclasses.dataclass(frozen=True)
class Inspected:
    """What a report of annotated images is made of."""

    images: Sequence[AnnotatedImage]
    validation: Sequence[AnnotatedImage] | None
    classes: ClassNames
    pipeline: InputPipeline
    grid: AnchorGrid
    positive_iou: float
    batches: Sequence[Batch]  # of arrays
    doubts: Sequence[str]  # sentences that the programs have said
    about: str  # where the images come from


def data_page(found: Inspected, settings: ReportSettings) -> str:
    """Return the text of the report."""
    arrays = image_arrays(found.images)
    figures: dict[str, Any] = {
        "images": len(found.images),
        "objects": len(arrays.boxes),
        "without_mask": int(np.sum(~arrays.has_mask)),
        "images_without_objects": int((arrays.counts == 0).sum()),
    }
    canvas, share = _canvas(found, arrays)
    anchors, coverage = _anchors(found)
    figures |= {"classes": _class_counts(arrays, found.classes), "canvas_filled": share, **coverage}
    sections = [
        _summary(found, figures),
        _classes(found, figures["classes"]),
        canvas,
        anchors,
        _samples(found, settings),
        _masks(found, settings),
    ]
    return page("Images and annotations", found.about, sections, figures)


def _summary(found: Inspected, figures: dict[str, Any]) -> Section:
    shown = [
        ("images", figures["images"]),
        ("objects", figures["objects"]),
        ("without a mask", figures["without_mask"]),
        ("images without objects", figures["images_without_objects"]),
        ("canvas, height x width", " or ".join(f"{high} x {wide}" for high, wide in found.pipeline.canvases)),
    ]
    said = "".join(map(paragraph, found.doubts)) or paragraph("Nothing doubtful was met while they were read.")
    return Section("Summary", tiles(shown) + said)


def _class_counts(arrays: ImageArrays, classes: ClassNames) -> dict[str, int]:
    counts = np.bincount(arrays.class_ids, minlength=classes.num_classes)
    return {classes.name_of(k): int(counts[k]) for k, name in enumerate(classes.names) if name is not None}


def _classes(found: Inspected, counts: dict[str, int]) -> Section:
    arrays, ids = image_arrays(found.images), found.classes.ids
    shown = np.unique(np.stack([arrays.class_ids, arrays.image_of]), axis=1)[0]
    images = np.bincount(shown, minlength=found.classes.num_classes)
    largest = sorted(counts.items(), key=lambda one: -one[1])
    header, total = ["class", "objects", "share", "images"], max(sum(counts.values()), 1)
    rows: list[list[Any]] = [[name, count, count / total, int(images[ids[name]])] for name, count in largest]
    if found.validation is not None:
        header.append("objects to score")
        scored = _class_counts(image_arrays(found.validation), found.classes)
        rows = [[*cells, scored[cells[0]]] for cells in rows]
    chart = charts.bars(largest[:MOST_CLASSES], label="objects of each class")
    some = (
        f"Objects of the {MOST_CLASSES} largest of {len(counts)} classes" if len(counts) > MOST_CLASSES else "Objects"
    )
    return Section("Class balance", row([figure(chart, some), table(header, rows)]))


def _canvas(found: Inspected, arrays: ImageArrays) -> tuple[Section, float]:
    """Return the section, and the share of the canvas that the pictures fill on the average."""
    share = filled_shares(found.pipeline, arrays.sizes)
    scales = list(found.pipeline.scales_of(found.images).values())
    edges = [number / COLUMNS for number in range(COLUMNS + 1)]
    objects = np.arange(max(int(arrays.counts.max(initial=0)), 1) + 2) - 0.5
    if len(objects) > COLUMNS:
        objects = np.linspace(0, float(arrays.counts.max()), COLUMNS + 1)
    said = (
        f"What pictures leave of the canvas is computed for nothing. They are drawn {min(scales):.3g} to "
        f"{max(scales):.3g} times as large as they are; {said_of_canvases(found.pipeline, arrays.sizes)}"
    )
    markup = paragraph(said) + row(
        [
            figure(_histogram(share, edges, "share of the canvas"), "Pictures by what they fill"),
            figure(_histogram(arrays.counts, objects, "objects of a picture"), "Pictures by their objects"),
        ]
    )
    return Section("Canvas", markup), float(share.mean())


def _histogram(values: np.ndarray, edges: Sequence[float] | np.ndarray, label: str, *, what: str = "pictures") -> str:
    counts, _ = np.histogram(values, edges)
    across = charts.Axis(label, float(edges[0]), float(edges[-1]))
    return charts.columns(
        list(edges), counts.astype(float).tolist(), across, charts.Axis(what, 0, float(max(counts.max(), 1)))
    )


def _anchors(found: Inspected) -> tuple[Section, dict[str, Any]]:
    """Return the section, and the share of the boxes that anchors cover, now and by the proposed ones."""
    boxes, total = on_canvas = boxes_on_canvas(found.images, found.pipeline, MOST_COMPARED)
    if not total:
        return Section("Boxes and anchors", paragraph("There are no boxes.")), {"coverage": None}
    ious = found.grid.best_iou(boxes)
    covered = ious >= found.positive_iou
    proposed = choose_anchors(some_of(boxes), found.positive_iou) if has_levels_of_choice(found.grid) else None
    said = (
        f"An anchor covers {covered.mean():.1%} of {len(boxes)} boxes by an IoU of {found.positive_iou} or more: those "
        f"are learnt at once, the others late or never. Sides on the canvas, sqrt(width x height): 5 % under "
        f"{np.percentile(on_canvas.sides, 5):.0f}, median {np.median(on_canvas.sides):.0f}, 5 % over "
        f"{np.percentile(on_canvas.sides, 95):.0f} pixels; anchor sizes {found.grid.sizes}."
    )
    best = _histogram(ious, np.linspace(0, 1, 21), "IoU with the best anchor", what="boxes")
    markup = paragraph(said) + row(
        [
            figure(_scatter(found.grid, boxes, covered), "Boxes on the canvas, and the anchors' shapes"),
            figure(best, "Boxes by their best anchor"),
        ]
    )
    figures: dict[str, Any] = {"coverage": float(covered.mean())}
    if proposed is not None:
        figures |= {"proposed": dict(proposed.settings), "proposed_coverage": proposed.coverage}
        markup += _proposal(proposed)
    return Section("Boxes and anchors", markup), figures


def _scatter(grid: AnchorGrid, boxes: np.ndarray, covered: np.ndarray) -> str:
    rows = np.linspace(0, len(boxes) - 1, min(len(boxes), MOST_POINTS)).astype(int)
    sides = np.maximum((boxes[:, 2:] - boxes[:, :2])[rows], 1.0)
    shapes = np.concatenate([grid.cell_sides(size, stride) for size, stride in zip(grid.sizes, grid.strides)])
    low, high = min(sides.min(), shapes.min()), max(sides.max(), shapes.max())
    across, up = charts.Axis("width, pixels", low, high, log=True), charts.Axis("height, pixels", low, high, log=True)
    return charts.points(
        [
            charts.Series("covered", sides[covered[rows]].tolist(), charts.BLUE),
            charts.Series("not covered", sides[~covered[rows]].tolist(), charts.RED),
            charts.Series("anchors", shapes.tolist(), "#111111"),
        ],
        across,
        up,
    )


def _proposal(proposed: AnchorChoice) -> str:
    said = (
        f"Chosen for these boxes, anchors would cover {proposed.coverage:.1%}. As lines of a gin file, for a new "
        "training; weights that were trained with other anchors do not fit them:"
    )
    return paragraph(said) + code(f"{name} = {value}" for name, value in proposed.settings.items())


def _samples(found: Inspected, settings: ReportSettings) -> Section:
    shown = []
    for batch in found.batches:
        for number, image_id in enumerate(batch.image_id):
            if image_id < 0 or len(shown) == settings.pictures:
                continue
            pixels = shrunk(drawn_sample(batch, number, found.classes), settings.side // 2)
            shown.append(picture(data_uri(pixels), f"image {int(image_id)}", width=pixels.shape[1]))
    said = "Samples of the first batches, changed as training changes them (--batches and --batch_size give more)."
    return Section("What the network sees", paragraph(said) + row(shown))


def _masks(found: Inspected, settings: ReportSettings) -> Section:
    doubts, looked_at = mask_doubts(found.images)
    shown = []
    for doubt in doubts[: settings.crops]:
        name, box = found.classes.name_of(doubt.instance.class_id), doubt.instance.box
        caption, image = f"{name}: {doubt.why}; {doubt.image.name}", read_or_none(doubt.image)
        if image is None:
            shown.append(paragraph(f"{caption} (the picture cannot be read)"))
            continue
        one = DrawnObject(box, doubt.window, 0)
        window, side = doubt.window, max(32, settings.side // 4)
        both = [*np.minimum(box[:2], (window.left, window.top)), *np.maximum(box[2:], (window.right, window.bottom))]
        view = around(both if window.pixels.size else box, image, side)
        parts = [shrunk(drawn(image, view, objects, {}, labels=False), side) for objects in ([], [one])]
        joined = side_by_side(*parts)
        shown.append(picture(data_uri(joined), caption, width=joined.shape[1]))
    said = f"{looked_at} masks were looked at beside their boxes; {len(doubts)} look wrong, the oddest first."
    said += more_of("crops", len(doubts), settings.crops)
    return Section(f"Masks that look wrong ({len(doubts)})", paragraph(said) + row(shown))
