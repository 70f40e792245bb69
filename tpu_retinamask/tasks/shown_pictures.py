"""What TensorBoard shows of an evaluation: a few pictures, always the same, and how scores and sizes are spread."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tpu_retinamask.coco.scores import Scoring
from tpu_retinamask.data.annotated_image import AnnotatedImage
from tpu_retinamask.reports.crops import drawn, object_of, read_or_none, side_by_side, whole

MOST_SHOWN = 4  # pictures
_SIDE = 256  # each half is at most twice as large
_DRAWN_FROM = 0.5  # score, where nothing says which is best


class ShownPictures:
    """Truth and detections of a few of the pictures that are scored, side by side."""

    def __init__(self, images: Sequence[AnnotatedImage], names: Sequence[str | None]) -> None:
        """Choose them, evenly among all.

        Args:
          images: that are scored.
          names: of the classes, by id.
        """
        rows = np.unique(np.linspace(0, len(images) - 1, min(MOST_SHOWN, len(images))).astype(int)).tolist()
        self._images, self._names = [images[row] for row in rows], names

    def pictures(
        self, scoring: Scoring, results: Sequence[dict[str, Any]], least: float | None
    ) -> dict[str, np.ndarray]:
        """Return pictures by name, uint8 [h, w, 3]: truth to the left, detections to the right.

        Args:
          scoring: whose truth is drawn.
          results: in COCO's form; category ids are class ids.
          least: score from which detections are drawn; None: 0.5.
        """
        least = _DRAWN_FROM if least is None else least
        found = {}
        for number, image in enumerate(self._images):
            pixels = read_or_none(image)
            if pixels is None:
                continue
            own = [one for one in scoring.truth.annotations if one["image_id"] == image.image_id]
            seen = [one for one in results if one["image_id"] == image.image_id and one["score"] >= least]
            found[f"val/picture_{number}"] = side_by_side(self._drawn(pixels, own), self._drawn(pixels, seen))
        return found

    def _drawn(self, pixels: np.ndarray, entries: Sequence[dict[str, Any]]) -> np.ndarray:
        objects = [object_of(one, one["category_id"]) for one in entries]
        return drawn(pixels, whole(pixels, _SIDE), objects, {i: name or "" for i, name in enumerate(self._names)})


def spreads(results: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Return the scores of detections, and the sides of their boxes, sqrt(width * height) in pixels, each [n]."""
    sides = [(one["bbox"][2] * one["bbox"][3]) ** 0.5 for one in results]
    return {"val/scores": np.array([one["score"] for one in results]), "val/box_sides": np.array(sides)}
