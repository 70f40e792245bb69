"""Pictures of any size in batches of a few fixed sizes: a compiled program for each of them and each canvas."""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tpu_retinamask.data.annotations.class_names import ClassNames
from tpu_retinamask.data.stream.canvases import CanvasFits
from tpu_retinamask.data.stream.pipeline import InputPipeline
from tpu_retinamask.structures import Batch, Detections, FittedPicture
from tpu_retinamask.tasks.detector import ImageDetections, image_detections


class Fitted(NamedTuple):
    """A picture on its canvas, and what leads back from there; of the picture itself nothing is kept."""

    canvas: tuple[int, int]
    sample: Batch  # without its first dimension
    scale: float  # canvas pixels per pixel of the picture
    size: tuple[int, int]  # height, width of the picture


class PictureBatches:
    """Finds the objects of several pictures at once.

    Attributes:
      most: pictures that a batch takes.
    """

    def __init__(
        self,
        make_detector: Callable[[], Callable[[Batch], Detections]],
        pipeline: InputPipeline,
        classes: ClassNames,
        batch_sizes: Sequence[int],
    ) -> None:
        """Take what runs the network; nothing is compiled yet.

        Args:
          make_detector: returns `Batch -> Detections`, as `inference.make_detector`; called once a program.
          pipeline: fits each picture to a canvas.
          classes: names of the classes.
          batch_sizes: of the programs; the smallest that holds the pictures is taken, and filled up.
        """
        self.most = max(batch_sizes)
        self._classes, self._sizes = classes, sorted(set(batch_sizes))
        self._detectors = {key: make_detector() for key in itertools.product(pipeline.canvases, self._sizes)}
        self._empty = {canvas: pipeline.on(canvas).padding_sample() for canvas in pipeline.canvases}
        self._fit = CanvasFits(pipeline)

    def compile(self) -> None:
        """Run each program once."""
        picture = np.zeros((8, 8, 3), np.uint8)
        for canvas, count in self._detectors:
            self._run([self._fitted(canvas, self._fit.on(canvas, picture), picture)] * count)

    def fit(self, picture: np.ndarray) -> Fitted:
        """Fit a picture, uint8 [h, w, 3], into the canvas that it fills best."""
        return self._fitted(*self._fit(picture), picture)

    def __call__(self, pictures: Sequence[Fitted]) -> list[ImageDetections]:
        """Find the objects of each picture, in order.

        Args:
          pictures: from `fit`; at most `most`.
        """
        found: dict[int, ImageDetections] = {}
        for canvas in {picture.canvas for picture in pictures}:
            places = [place for place, picture in enumerate(pictures) if picture.canvas == canvas]
            found |= zip(places, self._run([pictures[place] for place in places]), strict=True)
        return [found[place] for place in range(len(pictures))]

    def _fitted(self, canvas: tuple[int, int], found: FittedPicture, picture: np.ndarray) -> Fitted:
        sample = self._empty[canvas]._replace(image=found.image, content_size=found.content_size)
        return Fitted(canvas, sample, float(found.scale), (picture.shape[0], picture.shape[1]))

    def _run(self, pictures: Sequence[Fitted]) -> list[ImageDetections]:
        """Find the objects of pictures of one canvas."""
        canvas = pictures[0].canvas
        count = next(size for size in self._sizes if size >= len(pictures))
        samples = [picture.sample for picture in pictures] + [self._empty[canvas]] * (count - len(pictures))
        found = self._detectors[canvas, count](Batch(*(tf.stack(field) for field in zip(*samples))))
        found = Detections(*(np.asarray(part) for part in found))
        return [
            image_detections(Detections(*(part[row] for part in found)), picture.scale, picture.size, self._classes)
            for row, picture in enumerate(pictures)
        ]
