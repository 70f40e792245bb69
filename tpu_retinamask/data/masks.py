"""The mask of one instance, as its source has it: one type with one reader, `images.mask_reader`."""

import dataclasses
import zlib

import numpy as np

from tpu_retinamask.data.record_format import StoredImage
from tpu_retinamask.data.windows import window_of


@dataclasses.dataclass(frozen=True)
class Mask:
    """What all masks are; see the classes below."""

    def files(self) -> tuple[str, ...]:
        """Return the files that the mask is read from, beside its image's."""
        return ()


@dataclasses.dataclass(frozen=True)
class FileMask(Mask):
    """An image file of the picture's size.

    Attributes:
      path: resolved.
      value: the pixel value that marks the instance in a label map (`mask.png#7`); None: every non-zero pixel belongs
        to it.
      decoded_value: what `decode.decode_mask` reads for that label, once the file has been looked at; None as above.
    """

    path: str
    value: int | None = None
    decoded_value: int | None = None

    def files(self) -> tuple[str, ...]:
        """Return the file."""
        return (self.path,)

    def __str__(self) -> str:
        """Return it as an annotation file writes it."""
        return self.path if self.value is None else f"{self.path}#{self.value}"


@dataclasses.dataclass(frozen=True)
class ColourMask(Mask):
    """A colour, or an entry of the palette, of an image file of the picture's size: `mask.png#ff0000`.

    A graph reads no colours from mask files: these are read on the host and packed, as drawn masks are.

    Attributes:
      path: resolved; PNG, GIF or BMP.
      colour: red, green and blue of the instance's pixels; None: `index` says which.
      index: entry of the palette, or what a file of gray levels stores.
    """

    path: str
    colour: tuple[int, int, int] | None = None
    index: int | None = None

    def files(self) -> tuple[str, ...]:
        """Return the file."""
        return (self.path,)

    def __str__(self) -> str:
        """Return it as an annotation file writes it."""
        if self.colour is None:
            return f"{self.path}#{self.index}"
        return f"{self.path}#{bytes(self.colour).hex()}"


@dataclasses.dataclass(frozen=True)
class StoredMask(Mask):
    """A place in a prepared data set: the number of its instance in the record of its image."""

    image: StoredImage
    number: int


@dataclasses.dataclass(frozen=True)
class PolygonMask(Mask):
    """One polygon or several, of which the instance is all, less its holes.

    Attributes:
      polygons: each x1, y1, x2, y2, ... in pixels of the picture, three corners or more; drawn as pycocotools does.
      holes: polygons, drawn alike, whose pixels are no part of the instance.
    """

    polygons: tuple[tuple[float, ...], ...]
    holes: tuple[tuple[float, ...], ...] = ()

    def __str__(self) -> str:
        """Return how many corners it has."""
        return f"of {len(self.polygons)} polygons with {sum(map(len, self.polygons)) // 2} corners"


@dataclasses.dataclass(frozen=True)
class RunLengthMask(Mask):
    """Run lengths of COCO.

    Attributes:
      size: height, width.
      counts: compressed text, or runs column by column, the first of zeros.
    """

    size: tuple[int, int]
    counts: str | tuple[int, ...]

    def __str__(self) -> str:
        """Return its size."""
        return f"of run lengths for {self.size[1]} x {self.size[0]} pixels"


@dataclasses.dataclass(frozen=True, eq=False)
class ArrayMask(Mask):
    """Pixels in memory.

    Attributes:
      array: [h, w], other than zero on the instance.
    """

    array: np.ndarray

    def __str__(self) -> str:
        """Return its size."""
        return f"array {self.array.shape}"


@dataclasses.dataclass(frozen=True)
class WindowMask(Mask):
    """Pixels in a window of the picture, kept compressed: a picture of many objects holds none of them at full size.

    Attributes:
      left, top: first column and row of the window.
      width, height: of the window.
      packed: zlib of the window's pixels, row by row, eight to a byte.
    """

    left: int
    top: int
    width: int
    height: int
    packed: bytes

    @classmethod
    def of(cls, pixels: np.ndarray, left: int = 0, top: int = 0) -> "WindowMask":
        """Keep the smallest window that holds all pixels; with none, a window of no size.

        Args:
          pixels: [h, w], other than zero on the instance.
          left: column of the picture that the first column lies at.
          top: row of the picture that the first row lies at.
        """
        window = window_of(pixels, left, top)
        height, width = window.pixels.shape
        packed = zlib.compress(np.packbits(window.pixels, axis=None).tobytes(), 1)
        return cls(window.left, window.top, width, height, packed)

    def pixels(self) -> np.ndarray:
        """Return the pixels of the window, bool [height, width]."""
        bits = np.frombuffer(zlib.decompress(self.packed), np.uint8)
        count = self.height * self.width
        return np.unpackbits(bits, count=count).astype(bool).reshape(self.height, self.width)

    def __str__(self) -> str:
        """Return where it lies."""
        return f"of {self.width} x {self.height} pixels at {self.left}, {self.top}"


@dataclasses.dataclass(frozen=True)
class JoinedMask(Mask):
    """Several masks of different kinds, of which the instance is all.

    Attributes:
      parts: the masks; each is drawn.
    """

    parts: tuple[Mask, ...]

    def files(self) -> tuple[str, ...]:
        """Return the files of all parts."""
        return tuple(file for part in self.parts for file in part.files())

    def __str__(self) -> str:
        """Return how many parts it has."""
        return f"of {len(self.parts)} parts"
