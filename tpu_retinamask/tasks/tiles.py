"""Pictures larger than the network looks at, in overlapping tiles, and the detections of the tiles as the picture's.

An object that no seam cuts is found whole in one tile at least where the tiles lie over each other by its size. What a
seam cuts is a part: it is dropped where the whole, or a larger part, was found in the tile beside.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tpu_retinamask.data.images.window_runs import decode_window, encode_window
from tpu_retinamask.data.stream.pipeline import InputPipeline
from tpu_retinamask.errors import SettingError
from tpu_retinamask.structures import Batch, Detections
from tpu_retinamask.tasks.inference import detect_all

SAME_IOU = 0.5  # of two boxes of one class: the same object, seen in two tiles
PART_INSIDE = 0.7  # of a box that a seam cuts, inside another of its class: a part of it
AT_SEAM = 2.0  # pixels from a seam at which a box counts as cut by it


class Tile(NamedTuple):
    """A window of a picture, in its pixels."""

    x: int
    y: int
    width: int
    height: int


class Cutting(NamedTuple):
    """How pictures are cut."""

    tile: tuple[int, int] | None  # height, width in pixels; None: not at all
    overlap: int

    @classmethod
    def of(cls, tile: int | Sequence[int] | None, overlap: int | None) -> "Cutting":
        """Return what settings say: one side or two, and an overlap, a quarter of the shorter side where it is None.

        Raises:
          SettingError: tiles that do not get on.
        """
        if tile is None:
            if overlap is not None:
                raise SettingError(f"predict.tile_overlap is {overlap}, expected None where predict.tile is None")
            return cls(None, 0)
        height, width = (tile, tile) if isinstance(tile, int) else tile
        overlap = min(height, width) // 4 if overlap is None else overlap
        if not 0 <= overlap < min(height, width):
            raise SettingError(
                f"predict.tile_overlap is {overlap}, expected 0 or more and less than a side of the tile"
            )
        return cls((height, width), overlap)

    def tiles(self, height: int, width: int) -> list[Tile]:
        """Return the tiles of a picture; one where it is looked at whole."""
        return [Tile(0, 0, width, height)] if self.tile is None else tiles_of(height, width, self.tile, self.overlap)

    def __str__(self) -> str:
        """Return a line's beginning."""
        height, width = self.tile or (0, 0)
        return f"tiles of {width} x {height} pixels, {self.overlap} or more over each other (predict.tile_overlap)"


def tiles_of(height: int, width: int, tile: tuple[int, int], overlap: int) -> list[Tile]:
    """Cut a picture, row after row; the tiles lie evenly, by `overlap` pixels or more over each other.

    Args:
      height: of the picture, in pixels.
      width: of it.
      tile: height and width of a tile; a side of the picture that is no longer is not cut.
      overlap: in pixels, less than the sides of a tile.
    """
    rows, columns = _starts(height, tile[0], overlap), _starts(width, tile[1], overlap)
    sides = min(tile[1], width), min(tile[0], height)
    return [Tile(x, y, *sides) for y, x in itertools.product(rows, columns)]


def detect_in_tiles(
    detector: Callable[[Batch], Detections],
    pipeline: InputPipeline,
    picture: np.ndarray,
    tiles: Sequence[Tile],
    *,
    image_id: int,
    batch_size: int,
    category_ids: Sequence[int],
) -> list[dict]:
    """Return the detections of a picture, best first, in COCO results form and in its own pixels.

    Args:
      detector: `Batch -> Detections`.
      pipeline: fits each tile to the canvas.
      picture: uint8 [h, w, 3].
      tiles: from `tiles_of`.
      image_id: of the results.
      batch_size: tiles looked at at once.
      category_ids: category id of each class id.
    """
    found = detect_all(detector, _batches(pipeline, picture, tiles, batch_size), category_ids)
    return joined([(tiles[number], results) for number, results in found], *picture.shape[:2], image_id=image_id)


def joined(found: Iterable[tuple[Tile, list[dict]]], height: int, width: int, *, image_id: int) -> list[dict]:
    """Return the results of all tiles as those of the picture, each object once, best first.

    Of two boxes of one class and of different tiles, with an IoU above SAME_IOU, the one that no seam cuts stays, or of
    two alike the better. One that a seam cuts also goes where PART_INSIDE of it lies in another.

    Args:
      found: the COCO results of each tile, in pixels of the tile.
      height: of the picture.
      width: of it.
      image_id: of the results.
    """
    results, boxes, cut, origin = [], [], [], []
    for number, (tile, of_tile) in enumerate(found):
        for result in of_tile:
            x, y, w, h = result["bbox"]
            boxes.append([x + tile.x, y + tile.y, x + tile.x + w, y + tile.y + h])
            cut.append(_is_cut(boxes[-1], tile, height, width))
            origin.append(number)
            results.append((tile, result))
    if not results:
        return []
    classes = np.array([result["category_id"] for _, result in results])
    scores = np.array([result["score"] for _, result in results])
    kept = _kept(np.array(boxes), scores, classes, np.array(cut), np.array(origin))
    kept = sorted(kept, key=lambda index: -scores[index])
    return [_in_picture(results[index], height, width, image_id) for index in kept]


def _starts(side: int, tile: int, overlap: int) -> list[int]:
    if side <= tile:
        return [0]
    count = -(-(side - overlap) // (tile - overlap))
    return np.round(np.linspace(0, side - tile, count)).astype(int).tolist()


def _batches(pipeline: InputPipeline, picture: np.ndarray, tiles: Sequence[Tile], batch_size: int) -> Iterator[Batch]:
    pipeline = pipeline.of_size(max(tile.height for tile in tiles), max(tile.width for tile in tiles))
    fit = tf.function(pipeline.fit, autograph=False, input_signature=[tf.TensorSpec([None, None, 3], tf.uint8)])
    empty = pipeline.padding_sample()
    for start in range(0, len(tiles), batch_size):
        samples = []
        for number, tile in enumerate(tiles[start : start + batch_size], start):
            fitted = fit(picture[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width])
            samples.append(
                empty._replace(
                    image=fitted.image,
                    content_size=fitted.content_size,
                    image_scale=fitted.scale,
                    original_size=tf.constant([tile.height, tile.width], tf.int32),
                    image_id=tf.constant(number, tf.int64),
                )
            )
        samples += [empty] * (batch_size - len(samples))
        yield Batch(*(tf.stack(field) for field in zip(*samples)))


def _is_cut(box: Sequence[float], tile: Tile, height: int, width: int) -> bool:
    """Tell whether a box, in pixels of the picture, ends at a border of its tile that is none of the picture."""
    x1, y1, x2, y2 = box
    right, bottom = tile.x + tile.width, tile.y + tile.height
    return bool(
        (tile.x > 0 and x1 < tile.x + AT_SEAM)
        or (tile.y > 0 and y1 < tile.y + AT_SEAM)
        or (right < width and x2 > right - AT_SEAM)
        or (bottom < height and y2 > bottom - AT_SEAM)
    )


def _kept(boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, cut: np.ndarray, origin: np.ndarray) -> list[int]:
    """Return the rows that stay: boxes [n, 4], scores, classes, whether a seam cuts them, number of their tile [n]."""
    areas = np.maximum((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]), 1e-9)
    order = np.lexsort((-scores, -areas * cut, cut))  # whole ones first, by score; then parts, the larger first
    kept: list[int] = []
    for index in order:
        others = np.array(kept, int)
        others = others[(classes[others] == classes[index]) & (origin[others] != origin[index])]
        corner = np.maximum(boxes[others, :2], boxes[index, :2])
        shared = np.prod(np.maximum(np.minimum(boxes[others, 2:], boxes[index, 2:]) - corner, 0), axis=1)
        iou = shared / (areas[others] + areas[index] - shared)
        if not np.any((iou > SAME_IOU) | ((shared > PART_INSIDE * areas[index]) & cut[index])):
            kept.append(int(index))
    return kept


def _in_picture(found: tuple[Tile, dict], height: int, width: int, image_id: int) -> dict:
    tile, result = found
    x, y, w, h = result["bbox"]
    moved = {**result, "image_id": image_id, "bbox": [round(x + tile.x, 3), round(y + tile.y, 3), w, h]}
    if result.get("segmentation") is not None:
        mask = decode_window(result["segmentation"])
        mask = mask._replace(left=mask.left + tile.x, top=mask.top + tile.y)
        moved["segmentation"] = encode_window(mask, height, width)
    return moved
