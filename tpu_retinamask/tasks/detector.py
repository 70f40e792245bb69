"""A trained model as a function of pictures: paths or arrays in, objects in the picture's own pixels out."""

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tpu_retinamask.data.annotations.class_names import ClassNames
from tpu_retinamask.data.images.bad_file import BadFile
from tpu_retinamask.data.images.image_files import decode_picture, read_file
from tpu_retinamask.data.pixel_reading import PixelReading
from tpu_retinamask.data.sources.settings import SourceSettings
from tpu_retinamask.data.stream.canvases import CanvasFits
from tpu_retinamask.data.stream.pipeline import InputPipeline
from tpu_retinamask.errors import UserError
from tpu_retinamask.evaluation.results import paste_masks
from tpu_retinamask.model.postprocess import DetectionFilter, detect
from tpu_retinamask.model.retinamask import RetinaMask
from tpu_retinamask.structures import Detections
from tpu_retinamask.tasks import inference

Picture = str | os.PathLike | np.ndarray


class ImageDetections(NamedTuple):
    """The objects found in one picture, best first; n of them, no padding."""

    boxes: np.ndarray  # [n, 4] float32; x1, y1, x2, y2 in pixels of the picture, inside it
    scores: np.ndarray  # [n] float32
    classes: np.ndarray  # [n] int32
    names: tuple[str, ...]  # of each object's class
    mask_probabilities: np.ndarray  # [n, S, S] float32, inside `mask_boxes`; 0 beyond DetectionFilter.max_masks
    mask_boxes: np.ndarray  # [n, 4] float32; the boxes before they were cut at the picture's border
    size: tuple[int, int]  # height, width of the picture

    @property
    def masks(self) -> np.ndarray:
        """Return the masks at full size, bool [n, height, width]; made anew each time."""
        return paste_masks(self.mask_probabilities, self.mask_boxes, *self.size)


class Detector:
    """Finds objects in pictures; `detector(pictures)` gives one ImageDetections a picture.

    Attributes:
      model: RetinaMask with its trained weights.
      classes: names of the classes.
      pipeline: whose canvas, the one of several that it fills best, each picture is fitted into.
    """

    def __init__(
        self,
        model: RetinaMask,
        classes: ClassNames,
        pipeline: InputPipeline,
        detection_filter: DetectionFilter,
        *,
        jit_compile: bool = True,
        source: SourceSettings = SourceSettings(),  # noqa: B008  # frozen
    ) -> None:
        """Take what `inference.load_model` gave, and the settings of its run; nothing is compiled yet."""
        self.model, self.classes, self.pipeline, self.source = model, classes, pipeline, source

        def run(image: tf.Tensor, content_size: tf.Tensor) -> Detections:
            return detect(model, detection_filter, image[tf.newaxis], content_size[tf.newaxis])

        # Apart: the first takes pictures of any size, the second is one program of static shape a canvas.
        self._fit = CanvasFits(pipeline)
        self._detect = tf.function(run, jit_compile=jit_compile, autograph=False)

    def __call__(
        self, pictures: Picture | Sequence[Picture], *, exif_orientation: str | None = None
    ) -> list[ImageDetections]:
        """Find the objects of each picture.

        Args:
          pictures: one or several: paths or URLs of image files, or uint8 arrays [h, w, 3], RGB.
          exif_orientation: of rotated JPEG files: "apply" (boxes are in the upright picture), "ignore" (in the stored
            pixels) or "refuse"; None: as the run read its images, or "apply" where it refused such files.

        Returns:
          One ImageDetections a picture, in order.

        Raises:
          UserError: a file that cannot be read, or an array of another kind; names it.
        """
        if isinstance(pictures, str | os.PathLike) or (isinstance(pictures, np.ndarray) and pictures.ndim == 3):
            pictures = [pictures]
        policy = exif_orientation or inference.orientation_of_new_pictures(self.source)
        return [self._one(_pixels(picture, policy, self.source.pixels)) for picture in pictures]

    def _one(self, pixels: np.ndarray) -> ImageDetections:
        _, fitted = self._fit(pixels)
        found = self._detect(fitted.image, fitted.content_size)
        first = Detections(*(np.asarray(part)[0] for part in found))
        return image_detections(first, float(fitted.scale), (pixels.shape[0], pixels.shape[1]), self.classes)


def image_detections(found: Detections, scale: float, size: tuple[int, int], classes: ClassNames) -> ImageDetections:
    """Return what was found on the canvas in pixels of the picture, without padding.

    Args:
      found: of one picture: arrays without their first dimension.
      scale: canvas pixels per pixel of the picture.
      size: height, width of the picture.
      classes: their names.
    """
    rows = np.flatnonzero(found.classes >= 0)
    masks = np.pad(found.masks, [(0, len(found.classes) - len(found.masks)), (0, 0), (0, 0)])
    height, width = size
    whole = found.boxes[rows] / np.float32(scale)
    return ImageDetections(
        boxes=np.clip(whole, 0, np.array([width, height, width, height], np.float32)),
        scores=found.scores[rows],
        classes=found.classes[rows],
        names=tuple(classes.name_of(class_id) for class_id in found.classes[rows]),
        mask_probabilities=masks[rows],
        mask_boxes=whole,
        size=size,
    )


def _pixels(picture: Picture, exif_orientation: str, reading: PixelReading) -> np.ndarray:
    """Return a picture as uint8 [h, w, 3]."""
    if isinstance(picture, str | os.PathLike):
        path = os.fspath(picture)
        try:
            return decode_picture(read_file(path), exif_orientation, reading)
        except BadFile as error:
            raise UserError(f"{path}: {error}") from error
    pixels = np.asarray(picture)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise UserError(
            f"a picture is an array {pixels.dtype} {pixels.shape}, expected uint8 [height, width, 3], RGB from 0 to 255"
        )
    return pixels
