"""Pictures of any size in batches of a few fixed sizes: one compiled program each, whatever comes together."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tpu_retinamask.data.annotations.class_names import ClassNames
from tpu_retinamask.data.stream.pipeline import InputPipeline
from tpu_retinamask.structures import Batch, Detections
from tpu_retinamask.tasks.detector import ImageDetections, image_detections


class Fitted(NamedTuple):
    """A picture on the canvas, and what leads back from there; of the picture itself nothing is kept."""

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
        detectors: Mapping[int, Callable[[Batch], Detections]],
        pipeline: InputPipeline,
        classes: ClassNames,
    ) -> None:
        """Take detectors, from `inference.make_detector`; nothing is compiled yet.

        Args:
          detectors: `Batch -> Detections` by the size of its batch; the smallest that holds the pictures is taken, and
            filled up.
          pipeline: fits each picture to the canvas.
          classes: names of the classes.
        """
        self.most = max(detectors)
        self._detectors, self._classes = dict(sorted(detectors.items())), classes
        self._empty = pipeline.padding_sample()
        spec = tf.TensorSpec([None, None, 3], tf.uint8)
        self._fit = tf.function(pipeline.fit, autograph=False, input_signature=[spec])

    def compile(self) -> None:
        """Run each program once."""
        for count in self._detectors:
            self([self.fit(np.zeros((8, 8, 3), np.uint8))] * count)

    def fit(self, picture: np.ndarray) -> Fitted:
        """Fit a picture, uint8 [h, w, 3], into the canvas."""
        found = self._fit(picture)
        sample = self._empty._replace(image=found.image, content_size=found.content_size)
        return Fitted(sample, float(found.scale), (picture.shape[0], picture.shape[1]))

    def __call__(self, pictures: Sequence[Fitted]) -> list[ImageDetections]:
        """Find the objects of each picture, in order.

        Args:
          pictures: from `fit`; at least one, at most `most`.
        """
        count, detector = next(pair for pair in self._detectors.items() if pair[0] >= len(pictures))
        samples = [picture.sample for picture in pictures] + [self._empty] * (count - len(pictures))
        found = detector(Batch(*(tf.stack(field) for field in zip(*samples))))
        found = Detections(*(np.asarray(part) for part in found))
        return [
            image_detections(Detections(*(part[row] for part in found)), picture.scale, picture.size, self._classes)
            for row, picture in enumerate(pictures)
        ]
