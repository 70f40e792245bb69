"""What the one working thread does: encoded pictures in, JSON out, one picture decoded at a time."""

import json
import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from tpu_retinamask.data.images.bad_file import BadFile
from tpu_retinamask.data.images.image_files import decode_picture
from tpu_retinamask.data.pixel_reading import PixelReading
from tpu_retinamask.serving.answers import MaskForm, answer
from tpu_retinamask.serving.refusals import Refusal
from tpu_retinamask.tasks.detector import ImageDetections

log = logging.getLogger(__name__)

_CODES = {
    "not an image": (415, "not_an_image"),
    "unsupported format": (415, "unsupported_format"),
    "damaged": (422, "damaged_image"),
}


class Asked(NamedTuple):
    """A picture, and how it is to be answered; see `answers.answer`."""

    data: bytes
    threshold: float
    masks: MaskForm


class Batches(Protocol):
    """What runs the network, such as `tasks.picture_batches.PictureBatches`."""

    def fit(self, picture: np.ndarray) -> object:
        """Fit a picture, uint8 [h, w, 3], into the canvas."""
        ...

    def __call__(self, pictures: Sequence) -> list[ImageDetections]:
        """Find the objects of what `fit` gave."""
        ...


class PictureWork:
    """Answers pictures that came together; a bad one among them is refused by itself."""

    def __init__(
        self,
        batches: Batches,
        *,
        reading: PixelReading,
        exif_orientation: str,
        worked: Callable[[int, int], None] = lambda pictures, objects: None,
    ) -> None:
        """Take what runs the network.

        Args:
          batches: runs it.
          reading: how pixels of files are read, and how many a picture may have.
          exif_orientation: "apply" or "ignore"; see `image_files.check_image`.
          worked: told of the pictures of a batch and of the objects in them.
        """
        self._batches, self._reading, self._orientation, self._worked = batches, reading, exif_orientation, worked

    def __call__(self, asked: list[Asked]) -> list[bytes | Exception]:
        """Return the JSON of each picture, or why it is refused."""
        answers: list[bytes | Exception] = []
        fitted = []
        for one in asked:
            try:
                fitted.append(self._batches.fit(decode_picture(one.data, self._orientation, self._reading)))
                answers.append(b"")
            except BadFile as error:
                answers.append(_refusal(error, self._reading.max_pixels))
            except Exception as error:  # of a decoder: this picture's fault, or ours, and no other's
                log.exception("a picture could not be decoded")
                answers.append(error)
        if not fitted:
            return answers
        found = self._batches(fitted)
        self._worked(len(found), sum(len(one.scores) for one in found))
        for place, of_picture in zip((place for place, told in enumerate(answers) if told == b""), found, strict=True):
            try:
                content = answer(of_picture, threshold=asked[place].threshold, masks=asked[place].masks)
                content["exif_orientation"] = self._orientation
                answers[place] = json.dumps(content, allow_nan=False).encode()
            except ValueError as error:
                log.error("a picture was answered by numbers that are not finite: %s", error)
                answers[place] = error
        return answers


def _refusal(error: BadFile, max_pixels: int) -> Refusal:
    # What follows is advice for whoever started the server.
    what = str(error).partition(": --gin_param")[0]
    if error.kind == "too large":
        return Refusal(413, "too_many_pixels", what.partition(", and ")[0], f"at most {max_pixels} pixels")
    status, code = _CODES.get(error.kind, (422, "unreadable_image"))
    return Refusal(status, code, what, "a whole JPEG, PNG, GIF, BMP, WebP or TIFF file of one picture")
