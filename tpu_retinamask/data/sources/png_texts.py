"""Masks that a JSON file holds as a PNG written in base64, checked before they are decoded."""

import base64
import binascii
import io
import zlib

import numpy as np
import PIL.Image

from tpu_retinamask.data.masks import WindowMask
from tpu_retinamask.data.sources.checked import BadEntry, shown

MOST_PIXELS = 1 << 28  # of a mask, whatever size the source says that its picture has
MOST_BYTES = 1 << 28  # that a compressed text may hold: a PNG of more is no mask


def png_window(
    text: str,
    place: str,
    corner: tuple[int, int],
    frame: tuple[float, float] | None,
    size: tuple[int, int] | None = None,
    *,
    compressed: bool = False,
) -> WindowMask:
    """Return the mask of a PNG in base64.

    Args:
      text: the base64.
      place: in the words of an error.
      corner: x, y of its first pixel in the picture.
      frame: width, height of the picture; None: not known.
      size: width, height that the PNG must have; None: any.
      compressed: the base64 holds zlib of the PNG.

    Raises:
      BadEntry: no base64, no PNG, one that reaches beyond the picture or of another size.
    """
    data = _decompressed(_bytes_of(text, place), place) if compressed else _bytes_of(text, place)
    try:
        with PIL.Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
            _check(picture.size, place, corner, frame, size)
            pixels = _marked(picture)
    except BadEntry:
        raise
    except Exception as error:  # a damaged file makes Pillow's readers raise almost anything
        raise BadEntry(f"{place}: got base64 that holds no readable PNG: {error}") from None
    return WindowMask.of(pixels, *corner)


def _bytes_of(text: str, place: str) -> bytes:
    try:
        return base64.b64decode(text.partition(",")[2] if text.startswith("data:") else text)
    except (binascii.Error, ValueError):
        raise BadEntry(f"{place}: got {shown(text)}, expected base64") from None


def _decompressed(data: bytes, place: str) -> bytes:
    reader = zlib.decompressobj()
    try:
        found = reader.decompress(data, MOST_BYTES)
    except zlib.error as error:
        raise BadEntry(f"{place}: got base64 of no zlib stream: {error}") from None
    if reader.unconsumed_tail:
        raise BadEntry(f"{place}: got more than {MOST_BYTES:,} bytes, expected a PNG of a mask")
    return found


def _check(found, place, corner, frame, size) -> None:
    width, height = found
    if size is not None and found != size:
        raise BadEntry(
            f"{place}: got a PNG of {width} x {height} pixels, expected the {size[0]} x {size[1]} of its box"
        )
    left, top = corner
    if width * height > MOST_PIXELS:
        raise BadEntry(f"{place}: got {width} x {height} pixels, expected a mask of at most {MOST_PIXELS:,}")
    if frame is None:
        return
    if left < 0 or top < 0 or left + width > frame[0] or top + height > frame[1]:
        raise BadEntry(
            f"{place}: got {width} x {height} pixels at {left}, {top}, expected them inside the picture of "
            f"{frame[0]:g} x {frame[1]:g}"
        )


def _marked(picture: PIL.Image.Image) -> np.ndarray:
    """Return which pixels belong to the object, bool [h, w]: those that are not transparent, else those not black."""
    if "transparency" in picture.info:
        picture = picture.convert("RGBA")
    if picture.mode in ("RGBA", "LA", "PA"):
        return np.asarray(picture.getchannel("A")) != 0
    if picture.mode == "P":
        picture = picture.convert("RGB")
    pixels = np.asarray(picture) != 0
    return pixels.any(axis=-1) if pixels.ndim == 3 else pixels
