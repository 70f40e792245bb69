"""Masks by colour or by entry of a palette, read on the host: a graph's decoder replaces a palette by its colours."""

import io
from typing import NamedTuple

import numpy as np
import PIL.Image

from tpu_retinamask.data.images.image_files import BadFile, png_bit_depth, read_file
from tpu_retinamask.data.masks import ColourMask

FORMATS = ("PNG", "GIF", "BMP")  # what compresses with loss blurs colours
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")  # of 8 bits a channel at most


class Colours(NamedTuple):
    """A picture of colours.

    Attributes:
      values: uint8 [h, w, 3] of red, green and blue, alpha left out.
      indices: uint8 [h, w] of a palette, or of gray levels; None: it has neither.
    """

    values: np.ndarray
    indices: np.ndarray | None


def has_palette(path: str) -> bool:
    """Tell whether a file is a PNG whose pixels are entries of a palette."""
    data = read_file(path)
    return data[:4] == b"\x89PNG" and len(data) > 25 and data[25] == 3


def open_colours(path: str) -> Colours:
    """Decode a mask file by its colours.

    Raises:
      BadFile: missing, damaged, or of a kind that holds no exact colours.
    """
    data = read_file(path)
    try:
        picture = PIL.Image.open(io.BytesIO(data))
        if picture.format not in FORMATS:
            raise BadFile(
                "not a colour map",
                f"a {picture.format} file does not keep colours exactly: save masks of colours as PNG",
            )
        if picture.mode not in MODES or png_bit_depth(data) == 16:
            raise BadFile("not a colour map", f"a file of mode {picture.mode}, expected colours of 8 bits a channel")
        indices = np.asarray(picture) if picture.mode in ("P", "L") else None
        return Colours(np.asarray(picture.convert("RGB")), indices)
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:
        if isinstance(error, BadFile):
            raise
        raise BadFile("damaged", "not an image that can be decoded to its end") from None


def colour_pixels(colours: Colours, mask: ColourMask) -> np.ndarray:
    """Return the pixels of one colour or entry, bool [h, w].

    Raises:
      BadFile: an entry is asked for and there is no palette.
    """
    if mask.colour is not None:
        return (colours.values == np.array(mask.colour, np.uint8)).all(axis=-1)
    if colours.indices is None:
        raise BadFile("not a label map", f"{mask} is an entry of a palette, and the file has none")
    return colours.indices == mask.index
