"""The CSV that training reads: what was found becomes annotations."""

import csv
import io
import json
import os

from tpu_retinamask.coco.label_maps import relative
from tpu_retinamask.data.images.window_runs import encode_window
from tpu_retinamask.files import write_atomically
from tpu_retinamask.prediction_formats.registry import FORMATS, Output, PredictedPicture


@FORMATS.register("csv")
class CsvRows:
    """`predictions.csv`: a row `image,x1,y1,x2,y2,class,mask` an object, the mask as run lengths; it has no scores."""

    def __init__(self, output: Output) -> None:
        """Take where to."""
        self.path = os.path.join(output.folder, "predictions.csv")
        self.rows: list[list[str]] = []

    def files(self, stem: str) -> list[str]:
        """Return where a picture's objects are told."""
        return ["predictions.csv"]

    def add(self, picture: PredictedPicture) -> None:
        """Keep the rows of a picture."""
        image = relative(picture.name, self.path)
        for found in picture.objects:
            mask = ""
            if found.mask is not None:
                mask = json.dumps(encode_window(found.mask, picture.height, picture.width))
            self.rows.append([image, *(f"{edge:.3f}".rstrip("0").rstrip(".") for edge in found.box), found.name, mask])
        if not picture.objects:
            self.rows.append([image, "", "", "", "", "", ""])

    def finish(self) -> None:
        """Write the file."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(self.rows)
        write_atomically(self.path, text.getvalue())
