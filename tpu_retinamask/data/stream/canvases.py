"""Several canvases: each batch has one, that which its pictures fill, so that a step works on little padding.

A picture goes to the canvas of which it leaves the least empty. The pictures of a canvas are a stream of their own, in
epochs of their own, and the streams take turns: after a round each picture was shown as often as any other. Which
canvas a step has follows from its number alone, and so do its samples.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tpu_retinamask.data.annotated_image import AnnotatedImage
from tpu_retinamask.data.image_arrays import image_arrays
from tpu_retinamask.data.stream.pipeline import InputPipeline
from tpu_retinamask.data.subset import subset
from tpu_retinamask.structures import Batch, FittedPicture

STEP = 32  # pixels of which the sides of proposed canvases are multiples: those of a cell of P5


class Part(NamedTuple):
    """The pictures of one canvas, and the pipeline that fits them into it."""

    pipeline: InputPipeline
    images: Sequence[AnnotatedImage]


class Turns(NamedTuple):
    """Which part each batch is of; after a round of them each part has had its share."""

    round: np.ndarray  # [T] int; the part of each batch
    start: int  # batches that were made before the first

    def part(self, step: int) -> int:
        """Return the part of a batch, the first of which is number 0."""
        return int(self.round[(self.start + step) % len(self.round)])

    def before(self) -> list[int]:
        """Return how many batches each part has had before the first."""
        rounds, rest = divmod(self.start, len(self.round))
        parts = int(self.round.max()) + 1
        counts = rounds * np.bincount(self.round, minlength=parts) + np.bincount(self.round[:rest], minlength=parts)
        return counts.tolist()


def training_parts(pipeline: InputPipeline, images: Sequence[AnnotatedImage]) -> list[Part]:
    """Divide images by their canvas, once for each side of `min_side`: of a part all have one side and one canvas.

    Args:
      pipeline: of one canvas or several; one makes one part.
      images: to be trained on.
    """
    if len(pipeline.canvases) == 1:
        return [Part(pipeline, images)]
    return [part for of_side in pipeline.of_each_side() for part in _by_canvas(of_side, images)]


def scored_parts(pipeline: InputPipeline, images: Sequence[AnnotatedImage]) -> list[Part]:
    """Divide images by their canvas, of the side that evaluation has."""
    return [Part(pipeline, images)] if len(pipeline.canvases) == 1 else _by_canvas(pipeline, images)


def _by_canvas(pipeline: InputPipeline, images: Sequence[AnnotatedImage]) -> list[Part]:
    canvas = pipeline.canvas_of(image_arrays(images).sizes)
    return [
        Part(pipeline.on(pipeline.canvases[number]), subset(images, np.flatnonzero(canvas == number)))
        for number in np.unique(canvas).tolist()
    ]


def turns(parts: Sequence[Part], batch_size: int, start_image: int = 0) -> Turns:
    """Return the order in which parts take turns, each as often as it has samples.

    Args:
      parts: from `training_parts`.
      batch_size: B.
      start_image: samples that were shown before. Where that was in batches of another size, the first turn is the
        next whole one by batches of this size.
    """
    counts = np.array([part.pipeline.order_of(part.images).length for part in parts])
    counts //= math.gcd(*counts.tolist())
    # Each part's batches lie evenly on a line from 0 to 1.
    places = np.concatenate([(np.arange(count) + 0.5) / count for count in counts])
    parts_of = np.repeat(np.arange(len(counts)), counts)
    return Turns(parts_of[np.lexsort((parts_of, places))], -(-start_image // batch_size))


def training_batches(pipeline: InputPipeline, images: Sequence[AnnotatedImage], batch_size: int) -> Iterator[Batch]:
    """Yield the batches of a new training on one device, of whatever canvas is due."""
    parts = training_parts(pipeline, images)
    due, streams = turns(parts, batch_size), [iter(of.pipeline.train_dataset(of.images, batch_size)) for of in parts]
    return (next(streams[due.part(step)]) for step in itertools.count())


class CanvasFits:
    """Fits pictures, one at a time, each into the canvas that it fills; the graph of a canvas is traced once."""

    def __init__(self, pipeline: InputPipeline) -> None:
        """Take the canvases; nothing is traced yet."""
        spec = tf.TensorSpec([None, None, 3], tf.uint8)
        self._pipeline = pipeline
        self._fits = {
            canvas: tf.function(pipeline.on(canvas).fit, autograph=False, input_signature=[spec])
            for canvas in pipeline.canvases
        }

    def __call__(self, picture: np.ndarray) -> tuple[tuple[int, int], FittedPicture]:
        """Return (H, W) of the canvas and the picture, uint8 [h, w, 3], on it: the very pixels of `eval_dataset`."""
        canvas = self._pipeline.of_size(*picture.shape[:2]).canvases[0]
        return canvas, self.on(canvas, picture)

    def on(self, canvas: tuple[int, int], picture: np.ndarray) -> FittedPicture:
        """Return a picture on one of the canvases."""
        return self._fits[canvas](picture)


def filled(pipeline: InputPipeline, sizes: np.ndarray) -> float:
    """Return the mean of `filled_shares`."""
    return float(np.mean(filled_shares(pipeline, sizes)))


def filled_shares(pipeline: InputPipeline, sizes: np.ndarray) -> np.ndarray:
    """Return the share of its canvas that each picture fills in evaluation, [n].

    Args:
      pipeline: of one canvas or several.
      sizes: [n, 2], heights and widths.
    """
    canvases = np.array(pipeline.canvases)[pipeline.canvas_of(sizes)]
    scaled = sizes * pipeline.scales_on(sizes, canvases)[:, None]
    return np.prod(np.minimum(scaled / canvases, 1.0), axis=1)


def propose_canvases(pipeline: InputPipeline, sizes: np.ndarray, count: int) -> tuple[tuple[int, int], ...]:
    """Propose canvases that pictures fill, on which each is as large as on the pipeline's own.

    From one canvas for each shape those two are made one, again and again, that add the least empty area.

    Args:
      pipeline: whose `min_side`, `max_side` and canvases say how large a picture is to be.
      sizes: [n, 2], heights and widths, one at least.
      count: of canvases, at most.
    """
    wanted = []
    for of_side in pipeline.of_each_side():
        canvases = np.array(of_side.canvases)[of_side.canvas_of(sizes)]
        wanted.append(np.round(sizes * of_side.scales_on(sizes, canvases)[:, None]))
    shapes, often = np.unique(np.ceil(np.concatenate(wanted) / STEP).astype(int) * STEP, axis=0, return_counts=True)
    found = list(zip(map(tuple, shapes.tolist()), often.tolist()))

    def joined(one, other):
        (shape, times), (shape2, times2) = one, other
        return (max(shape[0], shape2[0]), max(shape[1], shape2[1])), times + times2

    def added(pair):
        return _area(joined(*pair)) - sum(map(_area, pair))

    while len(found) > count:
        pair = min(itertools.combinations(found, 2), key=added)
        found = [one for one in found if one not in pair] + [joined(*pair)]
    return tuple(sorted(shape for shape, _ in found))


def _area(one: tuple[tuple[int, int], int]) -> int:
    (height, width), times = one
    return height * width * times
