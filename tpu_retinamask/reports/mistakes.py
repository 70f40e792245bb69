"""The pictures of an evaluation, the worst first, and each kind of mistake by its crops; a bounded number of each."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tpu_retinamask.coco.findings import GOOD_MASK, PictureFindings, bad_masks
from tpu_retinamask.coco.scores import Scoring
from tpu_retinamask.reports.crops import (
    DrawnObject,
    Pixels,
    around,
    data_uri,
    drawn,
    inside,
    object_of,
    shrunk,
    side_by_side,
    whole,
)
from tpu_retinamask.reports.page import Section, more_of, paragraph, picture, row
from tpu_retinamask.reports.settings import ReportSettings


class _Crop(NamedTuple):
    """An object to show with what lies around it, truth to the left and detections to the right."""

    image_id: Any
    about: Sequence[DrawnObject]  # shown whole
    left: Sequence[DrawnObject]
    right: Sequence[DrawnObject]
    caption: str


class _Objects:
    """The objects of all pictures as they are drawn; made of COCO's entries one picture after another."""

    def __init__(self, scoring: Scoring, least: Sequence[float]) -> None:
        self.number = {category_id: k for k, category_id in enumerate(scoring.category_ids)}
        self.truths: dict[Any, list[dict]] = {image_id: [] for image_id in scoring.truth.images}
        self.detections: dict[Any, list[dict]] = {image_id: [] for image_id in scoring.truth.images}
        for one in scoring.truth.annotations:
            self.truths[one["image_id"]].append(one)
        for one in scoring.detections:
            if one["score"] >= least[self.number[one["category_id"]]]:
                self.detections[one["image_id"]].append(one)

    def of(self, entry: dict) -> DrawnObject:
        """Return what is drawn of an entry."""
        return object_of(entry, self.number[entry["category_id"]])

    def of_picture(self, entries: Iterable[dict]) -> list[DrawnObject]:
        """Return what is drawn of entries."""
        return [self.of(one) for one in entries]


def mistake_sections(
    scoring: Scoring,
    findings: Sequence[PictureFindings],
    least: Sequence[float],
    names: Sequence[str],
    pixels: Pixels,
    settings: ReportSettings,
) -> list[Section]:
    """Return the sections of pictures, false positives, misses, confusions and bad masks.

    Args:
      scoring: of `score_coco`.
      findings: of `findings.find`.
      least: score from which a detection counts, of each class in the order of `scoring.category_ids`.
      names: of these classes.
      pixels: of the pictures.
      settings: how many are shown, and how large.
    """
    objects = _Objects(scoring, least)
    files = {image_id: str(image.get("file_name", image_id)) for image_id, image in scoring.truth.images.items()}

    def named(entry: dict) -> str:
        return names[objects.number[entry["category_id"]]]

    wrong = sorted((one for found in findings for one in found.wrong), key=lambda one: -one["score"])
    missed = sorted((one for found in findings for one in found.missed), key=lambda one: -one["area"])
    confused = sorted((pair for found in findings for pair in found.confused), key=lambda p: -p.detection["score"])
    bad = bad_masks(scoring, least)
    kinds = [
        (
            "False positives",
            "Detections of nothing, the highest scores first. Left: truth; right: the detection.",
            len(wrong),
            [
                _Crop(d["image_id"], [objects.of(d)], [], [objects.of(d)], f"{named(d)} {d['score']:.2f}")
                for d in wrong[: settings.crops]
            ],
        ),
        (
            "Misses",
            "Objects that nothing found, the largest first. Left: the object; right: what was seen there.",
            len(missed),
            [_Crop(t["image_id"], [objects.of(t)], [objects.of(t)], [], named(t)) for t in missed[: settings.crops]],
        ),
        (
            "Confusions",
            "Objects that were taken for another class, the highest scores first.",
            len(confused),
            [
                _pair_crop(
                    pair, objects, f"{named(pair.truth)} seen as {named(pair.detection)} {pair.detection['score']:.2f}"
                )
                for pair in confused[: settings.crops]
            ],
        ),
        (
            "Bad masks",
            f"The box found the object, the mask fits it by an IoU under {GOOD_MASK}, the worst first.",
            len(bad),
            [
                _pair_crop(pair, objects, f"{named(pair.detection)}, IoU of the masks {pair.iou:.2f}")
                for pair in bad[: settings.crops]
            ],
        ),
    ]
    sections = [_pictures(findings, objects, files, names, pixels, settings)]
    for title, said, total, crops in kinds:
        if title == "Bad masks" and len(scoring.matched) < 2:
            continue
        said += more_of("crops", total, settings.crops)
        shown = [_shown(crop, objects, files, pixels, settings) for crop in crops]
        sections.append(Section(f"{title} ({total})", paragraph(said if total else "None.") + row(shown)))
    return sections


def _pair_crop(pair: Any, objects: _Objects, caption: str) -> _Crop:
    truth, detection = objects.of(pair.truth), objects.of(pair.detection)
    return _Crop(pair.truth["image_id"], [truth, detection], [truth], [detection], caption)


def _pictures(
    findings: Sequence[PictureFindings],
    objects: _Objects,
    files: dict[Any, str],
    names: Sequence[str],
    pixels: Pixels,
    settings: ReportSettings,
) -> Section:
    worst = sorted(findings, key=lambda one: (one.f1, -one.mistakes))
    shown = []
    for one in worst[: settings.pictures]:
        caption = (
            f"{files[one.image_id]}: F1 {one.f1:.2f}; {len(one.found)} found, {len(one.missed)} missed, "
            f"{len(one.wrong)} false positives, {len(one.confused)} confusions"
        )
        image = pixels(one.image_id)
        if image is None:
            shown.append(paragraph(f"{caption} (the picture is not there, or cannot be read)"))
            continue
        view = whole(image, settings.side)
        both = [
            shrunk(drawn(image, view, objects.of_picture(entries), names), settings.side)
            for entries in (objects.truths[one.image_id], objects.detections[one.image_id])
        ]
        joined = side_by_side(*both)
        shown.append(picture(data_uri(joined), caption, width=min(joined.shape[1], 1120), wide=True))
    said = "Left: truth; right: detections from the threshold of their class on. The lowest F1 first."
    said += more_of("pictures", len(findings), settings.pictures)
    return Section("Pictures", paragraph(said) + "".join(shown))


def _shown(crop: _Crop, objects: _Objects, files: dict[Any, str], pixels: Pixels, settings: ReportSettings) -> str:
    caption, image = f"{crop.caption}; {files[crop.image_id]}", pixels(crop.image_id)
    if image is None:
        return paragraph(f"{caption} (the picture is not there, or cannot be read)")
    boxes = np.array([one.box for one in crop.about])
    side = max(32, settings.side // 4)
    view = around([*boxes[:, :2].min(axis=0), *boxes[:, 2:].max(axis=0)], image, side)
    left = crop.left or inside(objects.of_picture(objects.truths[crop.image_id]), view)
    right = crop.right or inside(objects.of_picture(objects.detections[crop.image_id]), view)
    # Without names: one colour an object, and no strip below.
    both = [shrunk(drawn(image, view, part, {}, labels=False), side) for part in (left, right)]
    joined = side_by_side(*both)
    return picture(data_uri(joined), caption, width=joined.shape[1])
