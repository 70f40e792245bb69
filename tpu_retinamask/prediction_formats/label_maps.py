"""Label maps: one picture of numbers, of which each is an object."""

import csv
import io
import os

import numpy as np
import PIL.Image

from tpu_retinamask.errors import UserError
from tpu_retinamask.files import write_atomically
from tpu_retinamask.prediction_formats.registry import FORMATS, Output, PredictedPicture

MOST = 65535  # numbers that 16 bits have, without the 0 of the background
COLUMNS = ("label_map", "label", "class", "score", "pixels")


@FORMATS.register("label_map")
class LabelMaps:
    """`label_maps/STEM.png` a picture, 8 bits or 16 where it shows more than 255 objects, and `label_maps/labels.csv`.

    The number 1 is the best object. Where objects lie over each other a pixel is the better one's; a box without a mask
    has a row of 0 pixels.
    """

    def __init__(self, output: Output) -> None:
        """Take where to."""
        self.folder = os.path.join(output.folder, "label_maps")
        self.rows: list[tuple] = [COLUMNS]

    def files(self, stem: str) -> list[str]:
        """Return where a picture's objects are told."""
        return [f"label_maps/{stem}.png", "label_maps/labels.csv"]

    def add(self, picture: PredictedPicture) -> None:
        """Write the label map of a picture.

        Raises:
          UserError: it shows more objects than there are numbers.
        """
        count = len(picture.objects)
        if count > MOST:
            raise UserError(
                f"{picture.name}: {count} objects, expected at most {MOST} in a label map: raise --threshold, or leave "
                "label_map out of --formats"
            )
        labels = np.zeros((picture.height, picture.width), np.uint8 if count <= 255 else np.uint16)
        for label, found in reversed(list(enumerate(picture.objects, 1))):
            if found.mask is not None:
                mask = found.mask
                labels[mask.top : mask.bottom, mask.left : mask.right][mask.pixels] = label
        pixels = np.bincount(labels.ravel(), minlength=count + 1)
        name = f"{picture.stem}.png"
        self.rows += [
            (name, label, found.name, f"{found.score:.4f}", pixels[label])
            for label, found in enumerate(picture.objects, 1)
        ]
        encoded = io.BytesIO()
        PIL.Image.fromarray(labels).save(encoded, "PNG")
        write_atomically(os.path.join(self.folder, name), encoded.getvalue())

    def finish(self) -> None:
        """Write what each number is."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(self.rows)
        write_atomically(os.path.join(self.folder, "labels.csv"), text.getvalue())
