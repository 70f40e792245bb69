"""Pictures in a few pixels, to be compared and looked at by rules; nothing is trained on them."""

import warnings

import numpy as np
import PIL.Image
import PIL.ImageOps

from tpu_retinamask.data.annotated_image import AnnotatedImage
from tpu_retinamask.data.pixel_reading import ConvertedImage

SIDE = 16


def thumbnail(image: AnnotatedImage) -> np.ndarray | None:
    """Return a picture, upright as it is trained on, in SIDE x SIDE means of its pixels, float32 [SIDE, SIDE, 3].

    None: Pillow cannot open it by its path, for it lies in a bucket or in a prepared data set.
    """
    path = image.image.path if isinstance(image.image, ConvertedImage) else image.image
    if not isinstance(path, str):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)  # source.max_pixels has been asked
            with PIL.Image.open(path) as opened:
                opened.draft("RGB", (4 * SIDE, 4 * SIDE))
                upright = opened if image.orientation == 1 else PIL.ImageOps.exif_transpose(opened)
                small = upright.convert("RGB").resize((SIDE, SIDE), PIL.Image.Resampling.BOX)
    except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError):
        return None
    return np.asarray(small, np.float32)
