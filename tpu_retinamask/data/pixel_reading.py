"""How the pixels of an image file are read, and which files a graph reads only once they are converted."""

import dataclasses

CONVERTED_FORMATS = ("WEBP", "TIFF")  # TensorFlow of some versions reads WebP, none TIFF


@dataclasses.dataclass(frozen=True)
class PixelReading:
    """How the pixels of a file are read.

    Attributes:
      value_range: (low, high), the stored values that become 0 and 255 where a channel has more than 8 bits; values
        beyond are clipped. None: all that the bits can hold.
      pages: of a file of several pictures: "refuse" it, or take the "first".
      max_pixels: of a picture; one that declares more is refused before it is decoded.
    """

    value_range: tuple[float, float] | None = None
    pages: str = "refuse"
    max_pixels: int = 2 * 89_478_485  # what Pillow refuses by itself

    def wants_conversion(self, picture_format: str | None, bit_depth: int | None) -> bool:
        """Tell whether a file is converted: by its format, and the bits of its channels where it is a PNG."""
        return picture_format in CONVERTED_FORMATS or (bit_depth == 16 and self.value_range is not None)


@dataclasses.dataclass(frozen=True)
class ConvertedImage:
    """An image file that is read through `images.converted.to_png`.

    Attributes:
      path: of the file.
      reading: how.
    """

    path: str
    reading: PixelReading
