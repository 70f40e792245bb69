"""Pictures with what was found drawn over them."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tpu_retinamask.data.images.window_runs import decode_window
from tpu_retinamask.evaluation.pictures import draw_detections, save_picture
from tpu_retinamask.prediction_formats.registry import FORMATS, Output, PredictedPicture


@FORMATS.register("pictures")
class Overlays:
    """`STEM.png` a picture."""

    def __init__(self, output: Output) -> None:
        """Take where to."""
        self.output = output

    def files(self, stem: str) -> list[str]:
        """Return where a picture's objects are told."""
        return [f"{stem}.png"]

    def add(self, picture: PredictedPicture) -> None:
        """Draw and save a picture."""
        drawn = overlay(picture.pixels(), picture.results, self.output.classes.names, self.output.least)
        save_picture(os.path.join(self.output.folder, f"{picture.stem}.png"), drawn)

    def finish(self) -> None:
        """Add nothing."""


def overlay(
    image: np.ndarray,
    results: Sequence[dict[str, Any]],
    names: Sequence[str | None],
    least: Callable[[int], float],
) -> np.ndarray:
    """Return the picture of one image's COCO results.

    Args:
      image: uint8 [h, w, 3].
      results: of any score.
      names: of the classes, by category id.
      least: class id -> least score that is drawn.
    """
    corners = np.array([result["bbox"] for result in results], np.float64).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    wanted = [least(result["category_id"]) for result in results]
    seen = [
        result["score"] >= score and result.get("segmentation") is not None for score, result in zip(wanted, results)
    ]
    return draw_detections(
        image,
        corners,
        [decode_window(result["segmentation"]) if one else None for one, result in zip(seen, results)],
        [result["category_id"] for result in results],
        [result["score"] for result in results],
        names,
        score_threshold=wanted,
    )
