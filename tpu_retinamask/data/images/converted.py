"""Pictures that a graph does not read as they are meant, converted on the host: WebP, TIFF, chosen values of 16 bits.

What a graph, a record and a person then see is one PNG of 8 bits. TensorFlow of some versions reads WebP, none TIFF.
"""

import io

import numpy as np
import PIL.Image
import tensorflow as tf

from tpu_retinamask.data.images.bad_file import BadFile
from tpu_retinamask.data.pixel_reading import PixelReading

DARKEST_MAXIMUM = 4096  # of 65536: 12-bit values stored in 16 bits would be read as almost black
BITS_PER_SAMPLE = 258  # the tag of TIFF
_COLOURS = ("1", "L", "LA", "P", "RGB", "RGBA", "RGBX", "YCbCr")  # modes of 8 bits that become RGB without a choice
EXIF_ORIENTATION = 0x0112
_BACK = {  # from the upright picture
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_90,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_270,
}
_COMPRESSION = 3  # of 9; beyond it PNG gains a few percent and takes several times as long


def to_png(data: bytes, picture: PIL.Image.Image, reading: PixelReading) -> bytes:
    """Return the picture of a file as PNG of 8 bits, RGB.

    Args:
      data: the bytes of the file.
      picture: the same, opened.
      reading: how its values are read.

    Raises:
      BadFile: several pictures, or values without a range that says what is black and what is white.
    """
    pages = getattr(picture, "n_frames", 1)
    if pages > 1 and reading.pages != "first":
        raise BadFile(
            "several pictures",
            f"a {picture.format} file of {pages} pictures: save the one that is meant by itself, or take the first: "
            "--gin_param=\"source.pages='first'\"",
        )
    try:
        pixels = _of_png(data, reading) if picture.format == "PNG" else _of_picture(picture, reading)
    except (OSError, SyntaxError, ValueError, tf.errors.OpError) as error:
        if isinstance(error, BadFile):
            raise
        raise BadFile(
            "damaged",
            f"a {picture.format} file that cannot be decoded: truncated, damaged or of a rare kind",
        ) from None
    encoded = io.BytesIO()
    PIL.Image.fromarray(pixels).save(encoded, "PNG", compress_level=_COMPRESSION)
    return encoded.getvalue()


def too_dark(brightest: int, picture_format: str | None) -> BadFile:
    """Return the error of a picture of 16 bits that uses few of them."""
    return BadFile(
        "dark 16-bit image",
        f"16-bit {picture_format} whose brightest value is {brightest} of 65535: it would be read as almost black; say "
        f'which values are black and white: --gin_param="source.value_range=(0, {_next_full(brightest)})"',
    )


def _of_png(data: bytes, reading: PixelReading) -> np.ndarray:
    values = tf.io.decode_png(data, channels=0, dtype=tf.uint16).numpy()
    colours = values.shape[-1] - (1 - values.shape[-1] % 2)  # without alpha
    return _in_colour(_windowed(values[..., :colours], reading))


def _of_picture(opened: PIL.Image.Image, reading: PixelReading) -> np.ndarray:
    bits, kind, picture = _bits(opened), opened.format, _as_stored(opened)
    if picture.mode in _COLOURS:
        if bits > 8 and reading.value_range is not None:
            raise BadFile(
                "unsupported format",
                f"a {kind} file of {bits} bits a colour, of which source.value_range cannot choose: save it "
                "as 16-bit PNG",
            )
        pixels = np.asarray(picture.convert("RGB"))
        if bits == 16 and int(pixels.max()) < DARKEST_MAXIMUM // 256:
            raise BadFile(
                "dark 16-bit image",
                f"a {kind} file of 16 bits a colour that would be read as almost black: save it as 16-bit "
                "PNG and say which values are black and white by source.value_range",
            )
        return pixels
    if picture.mode not in ("I", "F", "I;16", "I;16L", "I;16B", "I;16N"):
        raise BadFile("unsupported format", f"a {kind} file of mode {picture.mode}: save it as PNG or JPEG in RGB")
    values = np.asarray(picture)
    if reading.value_range is not None:
        return _in_colour(_windowed(values[..., None], reading))
    if picture.mode == "F" or bits > 16:
        raise BadFile(
            "no range of values",
            f"a {kind} file of {bits} bits a pixel, with values from {values.min():g} to {values.max():g}: "
            "say which are black and white, such as "
            f'--gin_param="source.value_range=({values.min():g}, {values.max():g})"',
        )
    if bits == 16 and int(values.max()) < DARKEST_MAXIMUM:
        raise too_dark(int(values.max()), kind)
    return _in_colour((values[..., None] >> (bits - 8)).astype(np.uint8))  # the high byte, as of PNG


def _windowed(values: np.ndarray, reading: PixelReading) -> np.ndarray:
    assert reading.value_range is not None
    low, high = reading.value_range
    share = (values.astype(np.float32) - np.float32(low)) / np.float32(high - low)
    return np.round(255 * np.clip(share, 0, 1)).astype(np.uint8)


def _in_colour(pixels: np.ndarray) -> np.ndarray:
    return np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels


def _as_stored(picture: PIL.Image.Image) -> PIL.Image.Image:
    """Return the picture as it lies in the file; Pillow turns TIFF upright as it is decoded, and says so by the tag."""
    orientation = picture.getexif().get(EXIF_ORIENTATION, 1)
    picture.load()
    if orientation in _BACK and picture.getexif().get(EXIF_ORIENTATION, 1) == 1:
        return picture.transpose(_BACK[orientation])
    return picture


def _bits(picture: PIL.Image.Image) -> int:
    """Return the bits of a channel as they are stored."""
    stored = getattr(picture, "tag_v2", {}).get(BITS_PER_SAMPLE, 8)
    return max(stored) if isinstance(stored, tuple) else int(stored)


def _next_full(brightest: int) -> int:
    return 2 ** max(1, brightest.bit_length()) - 1
