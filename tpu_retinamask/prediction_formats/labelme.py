"""labelme's files: what was found, to be corrected there and trained on.

Source: https://github.com/wkentaro/labelme (labelme/_label_file.py)
"""

import base64
import hashlib
import io
import json
import os

import numpy as np
import PIL.Image
import tensorflow as tf

from tpu_retinamask.coco.label_maps import relative
from tpu_retinamask.data.windows import Window
from tpu_retinamask.errors import UserError, listed
from tpu_retinamask.files import read_text, write_json_atomically
from tpu_retinamask.prediction_formats.outlines import regions_of, simplified, softened, tolerance_of
from tpu_retinamask.prediction_formats.registry import FORMATS, FoundObject, Output, PredictedPicture

FOLDER = "labelme"
VERSION = "5.4.1"  # whose layout is written
DIGEST = "retinamask_predict"  # key of the digest of the shapes as they were written; labelme keeps it


@FORMATS.register("labelme")
class Labelme:
    """`labelme/STEM.json` a picture: `labelme PHOTOS --output OUTPUT_DIR/labelme` shows them over their pictures.

    An object is a polygon of few corners; several of one group where its mask has several parts; a mask where it has
    holes, which polygons of labelme have not; a rectangle where it has no mask. Its score is in the description.
    """

    def __init__(self, output: Output) -> None:
        """Take where to.

        Raises:
          UserError: files are there that a person has changed since, or that no run wrote.
        """
        self.folder = os.path.join(output.folder, FOLDER)
        paths = [os.path.join(self.folder, f"{stem}.json") for stem in output.stems]
        changed = [path for path in paths if as_written(path) is False]
        if changed:
            raise UserError(
                f"{self.folder} holds files that were changed after predict wrote them, or are not its own, and would "
                f"be replaced: give another --output_dir, or move them away:\n{listed(changed)}"
            )

    def files(self, stem: str) -> list[str]:
        """Return where a picture's objects are told."""
        return [f"{FOLDER}/{stem}.json"]

    def add(self, picture: PredictedPicture) -> None:
        """Write the file of a picture."""
        path = os.path.join(self.folder, f"{picture.stem}.json")
        shapes = [shape for number, found in enumerate(picture.objects, 1) for shape in _shapes(found, number)]
        content = {
            "version": VERSION,
            "flags": {},
            "shapes": shapes,
            "imagePath": relative(picture.name, path),
            "imageData": None,
            "imageHeight": picture.height,
            "imageWidth": picture.width,
            DIGEST: _digest(shapes),
        }
        write_json_atomically(path, content, indent=1)

    def finish(self) -> None:
        """Add nothing."""


def as_written(path: str) -> bool | None:
    """Tell whether a file of a run is as the run wrote it; None: there is none, or it is of another form."""
    folder, name = os.path.split(path)
    if os.path.basename(folder) != FOLDER or not name.endswith(".json") or not tf.io.gfile.exists(path):
        return None
    try:
        content = json.loads(read_text(path))
        return content[DIGEST] == _digest(content["shapes"])
    except (UserError, ValueError, LookupError, TypeError, RecursionError):
        return False


def _digest(shapes: list[dict]) -> str:
    return hashlib.sha256(json.dumps(shapes, sort_keys=True).encode()).hexdigest()


def _shapes(found: FoundObject, number: int) -> list[dict]:
    if found.mask is None:
        x1, y1, x2, y2 = found.box
        return [_shape(found, "rectangle", [[x1, y1], [x2, y2]])]
    regions = regions_of(found.mask)
    if any(region.holes for region in regions):
        return [_mask_shape(found, found.mask)]
    group = number if len(regions) > 1 else None
    return [
        _shape(found, "polygon", simplified(softened(region.outline), tolerance_of(region)).tolist(), group_id=group)
        for region in regions
    ]


def _mask_shape(found: FoundObject, mask: Window) -> dict:
    encoded = io.BytesIO()
    PIL.Image.fromarray(mask.pixels.astype(np.uint8)).save(encoded, "PNG")
    # Its corners are pixels, both of them.
    points = [[float(mask.left), float(mask.top)], [mask.right - 1.0, mask.bottom - 1.0]]
    return _shape(found, "mask", points, mask=base64.b64encode(encoded.getvalue()).decode("ascii"))


def _shape(found: FoundObject, kind: str, points: list, **more) -> dict:
    return {
        "label": found.name,
        "points": points,
        "group_id": None,
        "description": f"score {found.score:.3f}",
        "shape_type": kind,
        "flags": {},
        "mask": None,
        **more,
    }
