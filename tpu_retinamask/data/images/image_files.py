"""Open one image or mask file on the host and say what is wrong with it, by name."""

import dataclasses
import hashlib
import io
from collections.abc import Sequence

import numpy as np
import PIL.Image
import tensorflow as tf

from tpu_retinamask.data.images.bad_file import BadFile
from tpu_retinamask.data.images.converted import DARKEST_MAXIMUM, EXIF_ORIENTATION, to_png, too_dark
from tpu_retinamask.data.images.decode import apply_orientation, decode_image, decode_mask, label_step
from tpu_retinamask.data.pixel_reading import CONVERTED_FORMATS, ConvertedImage, PixelReading
from tpu_retinamask.errors import UserError
from tpu_retinamask.files import read_bytes

FORMATS = ("JPEG", "MPO", "PNG", "GIF", "BMP")  # MPO: a JPEG with further pictures behind the first


@dataclasses.dataclass(frozen=True)
class ImageFile:
    """What an image file holds: the size of the picture in its annotation frame, the turn to apply.

    `converted` is in place of the path where the file is not read as it is; equal files have equal digests.
    """

    height: int
    width: int
    orientation: int
    digest: str
    converted: ConvertedImage | None = None


@dataclasses.dataclass(frozen=True)
class MaskFile:
    """A decoded mask file.

    Attributes:
      values: uint16 [h, w] as `decode.decode_mask` reads them.
      label_step: what the label 1 reads as; None where the file cannot serve as a label map.
      no_labels_because: the reason for that.
    """

    values: np.ndarray
    label_step: int | None
    no_labels_because: str = ""


def check_image(path: str, exif_orientation: str, reading: PixelReading = PixelReading()) -> ImageFile:  # noqa: B008
    """Decode an image file whole, as training will.

    Args:
      path: local path or URL.
      exif_orientation: 'refuse', 'ignore' (boxes are meant on the stored pixels) or 'apply' (boxes are
        meant on the upright picture).
      reading: how its pixels are read.

    Raises:
      BadFile: missing, damaged, larger than allowed, or of a kind that would be read wrong.
    """
    data = read_file(path)
    pixels, orientation, converted = _decoded(data, exif_orientation, reading)
    height, width = pixels.shape[:2]
    if orientation >= 5:
        height, width = width, height
    digest = hashlib.blake2b(data, digest_size=16).hexdigest()
    return ImageFile(height, width, orientation, digest, ConvertedImage(path, reading) if converted else None)


def decode_picture(data: bytes, exif_orientation: str, reading: PixelReading) -> np.ndarray:
    """Decode the bytes of an image file to what `check_image` checks: uint8 [h, w, 3], in its annotation frame.

    Raises:
      BadFile: as of `check_image`.
    """
    pixels, orientation, _ = _decoded(data, exif_orientation, reading)
    return apply_orientation(tf.constant(pixels), tf.constant(orientation)).numpy()


def _decoded(data: bytes, exif_orientation: str, reading: PixelReading) -> tuple[np.ndarray, int, bool]:
    """Return the stored pixels, uint8 [h, w, 3], their orientation, and whether a graph reads the file converted."""
    picture = _open(data, (*FORMATS, *CONVERTED_FORMATS), reading.max_pixels)
    if reading.wants_conversion(picture.format, png_bit_depth(data)):
        orientation = _orientation(picture, exif_orientation)  # before it is decoded, which may turn it
        return decode_image(to_png(data, picture, reading)).numpy(), orientation, True
    try:
        pixels = decode_image(data).numpy()
    except tf.errors.OpError:
        if picture.format == "BMP":
            raise BadFile("unsupported format", _bmp_reason(picture.mode)) from None
        raise BadFile("damaged", _damaged(picture.format)) from None
    if picture.format == "BMP" and picture.mode not in ("L", "RGB", "RGBA"):
        raise BadFile("unsupported format", _bmp_reason(picture.mode))
    if picture.format in ("GIF", "BMP") or picture.mode == "CMYK":
        _compare_with_pillow(pixels, picture)
    if png_bit_depth(data) == 16:
        brightest = int(tf.reduce_max(decode_mask(data)))
        if brightest < DARKEST_MAXIMUM:
            raise too_dark(brightest, picture.format)
    return pixels, _orientation(picture, exif_orientation), False


def read_picture(image: str | ConvertedImage) -> bytes:
    """Read an image file as a graph decodes it: as it is, or converted.

    Raises:
      BadFile: missing, or not what it was when it was checked.
    """
    if isinstance(image, str):
        return read_file(image)
    data = read_file(image.path)
    return to_png(data, _open(data, (*FORMATS, *CONVERTED_FORMATS), image.reading.max_pixels), image.reading)


def load_mask(path: str) -> MaskFile:
    """Decode a mask file as training will, and see whether it can serve as a label map.

    Raises:
      BadFile: missing, damaged, or a mask that means different things to different readers.
    """
    data = read_file(path)
    picture = _open(data, FORMATS, PixelReading().max_pixels)
    try:
        values = decode_mask(data).numpy()
        _check_alpha(picture, values)
        if picture.mode not in ("L", "1", "I;16", "I", "RGB") and not _same_instance(picture, values):
            raise BadFile(
                "ambiguous mask",
                (
                    f"{picture.format} mask of mode {picture.mode} whose colours and stored values disagree "
                    "about which pixels are zero; save it as 8-bit grayscale PNG"
                ),
            )
    except (tf.errors.OpError, OSError):
        raise BadFile("damaged", _damaged(picture.format)) from None
    if picture.format in ("JPEG", "MPO") and np.any((values > 0) & (values < 128 * 257)):
        raise BadFile(
            "ambiguous mask",
            (
                "JPEG mask with values between 1 and 127: compression has blurred its edges, and each would "
                "count as the instance; save masks as PNG"
            ),
        )
    return MaskFile(values, *_label_step(data, picture))


def read_file(path: str) -> bytes:
    """Read a whole file.

    Raises:
      BadFile: missing, no file, or not readable.
    """
    try:
        return read_bytes(path)
    except FileNotFoundError:
        hint = r" (the path holds '\'; write '/' between folders)" if "\\" in path else ""
        raise BadFile("missing", f"no such file: {path}{hint}") from None
    except UserError as error:
        raise BadFile("missing", str(error)) from None


def png_bit_depth(data: bytes) -> int | None:
    """Read the bits a channel from a PNG header; None for other formats."""
    return data[24] if data[:4] == b"\x89PNG" and len(data) > 25 else None


def _open(data: bytes, formats: Sequence[str], max_pixels: int) -> PIL.Image.Image:
    """Open a file without decoding it, if it is of one of the formats and declares no more pixels."""
    if not data:
        raise BadFile("damaged", "the file is empty")
    try:
        picture = _identify(data)
    except PIL.Image.DecompressionBombError as error:  # of a format that is refused in any case
        raise BadFile("unsupported format", str(error)) from None
    except Exception:  # a damaged header makes Pillow's readers raise almost anything
        if data[4:8] == b"ftyp":
            brand = data[8:12].decode("latin-1").upper()
            raise BadFile(
                "unsupported format", f"a {brand} file (HEIC, AVIF or video); convert it to JPEG or PNG"
            ) from None
        raise BadFile("not an image", f"not an image: it starts with {data[:8]!r}") from None
    if picture.format not in formats:
        raise BadFile(
            "unsupported format", f"a {picture.format} file, which training cannot read; convert it to PNG or JPEG"
        )
    if picture.width * picture.height > max_pixels:
        raise BadFile(
            "too large",
            f"it declares {picture.width} x {picture.height} = {picture.width * picture.height} pixels, and "
            f"{max_pixels} are allowed: where it is no damage and the memory holds it, allow them: "
            f'--gin_param="source.max_pixels={picture.width * picture.height}"',
        )
    return picture


def _identify(data: bytes) -> PIL.Image.Image:
    # Pillow's own `open` warns of large pictures and refuses larger ones by a number of its own.
    PIL.Image.init()
    for name in ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"):
        factory, accepts = PIL.Image.OPEN.get(name, (None, None))
        if factory is not None and accepts is not None and accepts(data[:16]) is True:
            return factory(io.BytesIO(data), "")
    return PIL.Image.open(io.BytesIO(data))


def _damaged(image_format: str | None) -> str:
    return f"a {image_format} file that cannot be decoded to its end: truncated or damaged"


def _bmp_reason(mode: str) -> str:
    return f"a BMP file of mode {mode} (palette, 1-bit or compressed), which would be read wrong; save it as PNG"


def _compare_with_pillow(pixels: np.ndarray, picture: PIL.Image.Image) -> None:
    # Rare kinds whose decoders are known to disagree (CMYK without Adobe's marker is read inverted):
    # looking costs less than a list of every variant.
    try:
        expected = np.asarray(picture.convert("RGB"))
    except OSError:
        raise BadFile("damaged", _damaged(picture.format)) from None
    if expected.shape != pixels.shape or np.abs(expected.astype(int) - pixels).max() > 2:
        raise BadFile(
            "unsupported format",
            (
                f"a {picture.format} file of mode {picture.mode} that TensorFlow and Pillow read differently; "
                "convert it to RGB and save it as PNG or JPEG"
            ),
        )


def _orientation(picture: PIL.Image.Image, policy: str) -> int:
    try:
        orientation = picture.getexif().get(EXIF_ORIENTATION, 1)
    except Exception:  # as of a damaged header
        raise BadFile("damaged", _damaged(picture.format)) from None
    if orientation not in range(1, 9) or policy == "ignore":
        return 1
    if orientation != 1 and policy == "refuse":
        raise BadFile(
            "EXIF orientation",
            (
                f"its EXIF orientation is {orientation}, so boxes and masks may be meant on the stored or on the "
                "upright picture. Say which: --gin_param=\"source.exif_orientation='apply'\" where they are drawn on "
                "the upright picture, as most tools show it, or --gin_param=\"source.exif_orientation='ignore'\" "
                "where on the stored pixels"
            ),
        )
    return int(orientation)


def _check_alpha(picture: PIL.Image.Image, values: np.ndarray) -> None:
    if not (picture.mode in ("LA", "PA", "RGBA") or "transparency" in picture.info):
        return
    alpha = np.asarray(picture.convert("RGBA"))[..., 3]
    if alpha.min() < 255 and np.any((alpha > 0) != (values > 0)):
        raise BadFile(
            "ambiguous mask",
            (
                f"a mask of mode {picture.mode} whose transparency and colours disagree about which pixels are "
                "the instance; save it as 8-bit grayscale PNG"
            ),
        )


def _same_instance(picture: PIL.Image.Image, values: np.ndarray) -> bool:
    non_zero = values > 0
    same = np.array_equal(np.asarray(picture.convert("RGB")).any(axis=-1), non_zero)
    if picture.mode == "P":
        same = same and np.array_equal(np.asarray(picture) != 0, non_zero)
    return same


def _label_step(data: bytes, picture: PIL.Image.Image) -> tuple[int | None, str]:
    if picture.format != "PNG":
        return None, f"a label map must be a PNG file, not {picture.format}"
    if picture.mode in ("P", "PA"):
        return None, "a palette PNG cannot be a label map, because its values are replaced by colours"
    if picture.mode in ("RGB", "RGBA"):
        channels = np.asarray(picture)[..., :3]
        if np.any(channels != channels[..., :1]):
            return None, "a label map must have one channel; this file holds colours"
    return label_step(png_bit_depth(data) or 8), ""
