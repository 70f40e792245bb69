"""Pictures and parts of them with objects drawn over them, of bounded size, as text that a page holds."""

import base64
import functools
import io
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image

from tpu_retinamask.data.annotated_image import AnnotatedImage
from tpu_retinamask.data.images.upright import upright_pixels
from tpu_retinamask.data.images.window_runs import decode_window
from tpu_retinamask.data.windows import Window
from tpu_retinamask.errors import UserError
from tpu_retinamask.evaluation.pictures import draw_detections
from tpu_retinamask.files import reason_of

log = logging.getLogger(__name__)

_AROUND = 0.6  # of an object's longer side, shown on each side of it
_LEAST_AROUND = 12  # pixels
_GAP = 6  # pixels between two pictures side by side
_QUALITY = 85

Pixels = Callable[[Any], np.ndarray | None]  # image id -> uint8 [h, w, 3]; None: it cannot be read


def read_or_none(image: AnnotatedImage) -> np.ndarray | None:
    """Return the pixels of a picture, uint8 [h, w, 3]; None where it cannot be read any more, which is told."""
    try:
        return upright_pixels(image)
    except (OSError, UserError, tf.errors.OpError) as error:
        log.warning("%s is left out of the report: %s", image.name, reason_of(error))
        return None


def pixels_by_id(images: Mapping[Any, AnnotatedImage]) -> Pixels:
    """Return a function that reads pictures by their ids, and keeps the last few."""

    @functools.lru_cache(maxsize=4)
    def read(image_id: Any) -> np.ndarray | None:
        return read_or_none(images[image_id]) if image_id in images else None

    return read


class DrawnObject(NamedTuple):
    """An object to draw, in pixels of its picture."""

    box: tuple[float, float, float, float]  # x1, y1, x2, y2
    mask: Window | None
    class_number: int  # position of its class
    score: float | None = None  # None: of the truth


class View(NamedTuple):
    """A part of a picture, and how much smaller it is drawn."""

    left: int
    top: int
    right: int
    bottom: int
    scale: float  # at most 1

    @property
    def size(self) -> tuple[int, int]:
        """Return height and width as drawn."""
        sides = (self.bottom - self.top, self.right - self.left)
        return max(1, round(sides[0] * self.scale)), max(1, round(sides[1] * self.scale))

    def picture(self, pixels: np.ndarray) -> np.ndarray:
        """Return the part of a picture, uint8 [h, w, 3]."""
        part = pixels[self.top : self.bottom, self.left : self.right]
        height, width = self.size
        if part.shape[:2] == (height, width):
            return part
        return np.asarray(Image.fromarray(part).resize((width, height), Image.Resampling.BOX))

    def box(self, box: Sequence[float]) -> list[float]:
        """Return a box of the picture in this part."""
        x1, y1, x2, y2 = box
        return [(value - start) * self.scale for value, start in zip((x1, y1, x2, y2), (self.left, self.top) * 2)]

    def mask(self, window: Window | None) -> Window | None:
        """Return a mask of the picture in this part: at each pixel's centre what is there."""
        if window is None:
            return None
        height, width = self.size
        ys = self.top + np.floor((np.arange(height) + 0.5) * (self.bottom - self.top) / height).astype(int)
        xs = self.left + np.floor((np.arange(width) + 0.5) * (self.right - self.left) / width).astype(int)
        rows = np.flatnonzero((ys >= window.top) & (ys < window.bottom))
        columns = np.flatnonzero((xs >= window.left) & (xs < window.right))
        if not rows.size or not columns.size:
            return None
        inside = window.pixels[np.ix_(ys[rows] - window.top, xs[columns] - window.left)]
        return Window(int(columns[0]), int(rows[0]), inside)


def whole(pixels: np.ndarray, side: int) -> View:
    """Return the view of a whole picture that is drawn at most two times `side` pixels large."""
    height, width = pixels.shape[:2]
    return View(0, 0, width, height, min(1.0, 2 * side / max(height, width)))


def around(box: Sequence[float], pixels: np.ndarray, side: int) -> View:
    """Return the view of an object and what lies around it, as near a square as the picture allows."""
    (x1, y1, x2, y2), (height, width) = box, pixels.shape[:2]
    longer = max(x2 - x1, y2 - y1)
    reach = longer / 2 + max(_AROUND * longer, _LEAST_AROUND)
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    left, right = max(0, math.floor(x - reach)), min(width, math.ceil(x + reach))
    top, bottom = max(0, math.floor(y - reach)), min(height, math.ceil(y + reach))
    left, top = min(left, width - 1), min(top, height - 1)
    right, bottom = max(right, left + 1), max(bottom, top + 1)
    return View(left, top, right, bottom, min(1.0, 2 * side / max(right - left, bottom - top)))


def drawn(
    pixels: np.ndarray,
    view: View,
    objects: Sequence[DrawnObject],
    names: Sequence[str] | Mapping[int, str],
    *,
    labels: bool | None = None,
) -> np.ndarray:
    """Return a part of a picture with objects over it; the names of the classes in a strip where there are several."""
    scored = [one.score for one in objects if one.score is not None]
    return draw_detections(
        view.picture(pixels),
        np.array([view.box(one.box) for one in objects]).reshape(-1, 4),
        [view.mask(one.mask) for one in objects],
        [one.class_number for one in objects],
        scored if scored else None,
        names,
        score_threshold=0.0,
        labels=labels,
    )


def inside(objects: Sequence[DrawnObject], view: View) -> list[DrawnObject]:
    """Return the objects of which a part can be seen."""
    return [
        one
        for one in objects
        if one.box[0] < view.right and one.box[2] > view.left and one.box[1] < view.bottom and one.box[3] > view.top
    ]


def object_of(entry: Mapping[str, Any], class_number: int) -> DrawnObject:
    """Return an annotation or a result of COCO's form as what is drawn."""
    x, y, width, height = entry["bbox"]
    return DrawnObject((x, y, x + width, y + height), window_of_runs(entry), class_number, entry.get("score"))


def window_of_runs(entry: Mapping[str, Any]) -> Window | None:
    """Return the mask of an annotation or a result of COCO's form; None: it has none, or one without pixels."""
    runs = entry.get("segmentation")
    if not runs:
        return None
    counts = runs["counts"]
    window = decode_window({**runs, "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts})
    return window if window.pixels.size else None


def side_by_side(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return two pictures beside each other, tops level, on black."""
    height = max(first.shape[0], second.shape[0])
    joined = np.zeros((height, first.shape[1] + _GAP + second.shape[1], 3), np.uint8)
    joined[: first.shape[0], : first.shape[1]] = first
    joined[: second.shape[0], first.shape[1] + _GAP :] = second
    return joined


def shrunk(pixels: np.ndarray, side: int) -> np.ndarray:
    """Return a picture no larger than `side` along its longer side."""
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return pixels
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


def data_uri(pixels: np.ndarray) -> str:
    """Return a picture as the text of a JPEG that a page holds."""
    encoded = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(encoded, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(encoded.getvalue()).decode("ascii")
