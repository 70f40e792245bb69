"""The seat of what predict writes, and what a writer is given."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from tpu_retinamask.data.annotations.class_names import ClassNames
from tpu_retinamask.data.images.window_runs import decode_window
from tpu_retinamask.data.windows import Window
from tpu_retinamask.seats import Seat


class Output(NamedTuple):
    """Where a run of predict writes, and of what."""

    folder: str
    classes: ClassNames
    threshold: float  # least score of the objects that are drawn and listed, of any class; coco lists all
    stems: Sequence[str] = ()  # of the pictures that will come
    class_thresholds: Sequence[float] = ()  # by class id; empty: `threshold` holds for each

    def least(self, class_id: int) -> float:
        """Return the score from which objects of a class are drawn and listed."""
        return self.class_thresholds[class_id] if self.class_thresholds else self.threshold


class FoundObject(NamedTuple):
    """An object that reached the threshold."""

    class_id: int
    name: str  # of its class
    score: float
    box: tuple[float, float, float, float]  # x1, y1, x2, y2 in pixels, inside the picture, of some area
    mask: Window | None  # None: none was made, or it has no pixel


class PredictedPicture(NamedTuple):
    """A picture with what was found in it."""

    image_id: int
    name: str  # path of its file, as it was found
    stem: str  # of files of its own: unlike those of all other pictures
    height: int
    width: int
    pixels: Callable[[], np.ndarray]  # -> uint8 [height, width, 3] RGB, upright; decoded at the first call
    results: Sequence[dict[str, Any]]  # COCO results of any score, with file_name and category_name
    objects: Sequence[FoundObject]  # those that reached the threshold, best first


class PredictionWriter(Protocol):
    """Writes the pictures of one run, one after the other; made once a run, of an `Output`.

    One that has `files(stem)` too is replaced as a whole by the next run: see `files_of`.
    """

    def add(self, picture: PredictedPicture) -> None:
        """Write, or keep, what was found in a picture."""
        ...

    def finish(self) -> None:
        """Write what all pictures have in common; nothing is added afterwards."""
        ...


def files_of(writer: PredictionWriter, stem: str) -> list[str]:
    """Return the files in which a writer tells of a picture, by their names below the folder.

    They are `FOLDER/NAME`, `NAME.png` or `predictions.KIND`. A writer without `files` names none: the next run does not
    remove them.
    """
    return list(getattr(writer, "files", lambda stem: [])(stem))


FORMATS: Seat[Callable[[Output], PredictionWriter]] = Seat("prediction format", "tpu_retinamask.prediction_formats")


def objects_of(
    results: Sequence[dict[str, Any]], output: Output, height: int, width: int
) -> tuple[list[FoundObject], int]:
    """Return the objects that reached the threshold, and how many of those have no area and are left out.

    Args:
      results: of one picture, in COCO's form.
      output: whose threshold and classes hold.
      height: of the picture.
      width: of the picture.
    """
    objects, flat = [], 0
    for result in sorted(results, key=lambda result: -result["score"]):
        if result["score"] < output.least(result["category_id"]):
            continue
        x, y, across, down = result["bbox"]
        # Three decimals, as they stand in the results; the sum of two may be one more than the picture has.
        box = x, y, min(round(x + across, 3), float(width)), min(round(y + down, 3), float(height))
        if box[2] <= x or box[3] <= y:
            flat += 1
            continue
        runs = result.get("segmentation")
        mask = None if runs is None else decode_window(runs)
        class_id = result["category_id"]
        mask = mask if mask is not None and mask.pixels.size else None
        objects.append(FoundObject(class_id, output.classes.name_of(class_id), result["score"], box, mask))
    return objects, flat
