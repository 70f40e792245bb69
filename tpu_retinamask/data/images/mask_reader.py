"""Full-size instance masks on the host, whatever their source has them as."""

import collections
import io
import math
from collections.abc import Collection, Iterable

import numpy as np
import PIL.Image

from tpu_retinamask.data.annotated_image import AnnotatedImage, AnnotatedInstance, ListedImage, ListedInstance
from tpu_retinamask.data.images.bad_file import BadFile
from tpu_retinamask.data.images.colour_masks import Colours, colour_pixels, open_colours
from tpu_retinamask.data.images.image_files import png_bit_depth, read_file, read_picture
from tpu_retinamask.data.images.packed_masks import unpack_mask
from tpu_retinamask.data.images.run_lengths import polygon_pixels, polygon_run_lengths, run_length_pixels
from tpu_retinamask.data.images.window_runs import decode_window
from tpu_retinamask.data.masks import (
    ArrayMask,
    ColourMask,
    FileMask,
    JoinedMask,
    Mask,
    PolygonMask,
    RunLengthMask,
    StoredMask,
    WindowMask,
)
from tpu_retinamask.data.pixel_reading import ConvertedImage
from tpu_retinamask.data.record_checks import RecordsError
from tpu_retinamask.data.record_format import StoredImage, read_stored_image, read_stored_masks
from tpu_retinamask.data.windows import EMPTY, Window, window_of

Instance = ListedInstance | AnnotatedInstance


class MaskReader:
    """Read instance masks, keeping the file read last: a label map serves many instances in a row."""

    def __init__(self) -> None:
        """Begin with no file."""
        self._path: str | None = None
        self._values = np.zeros([0, 0])
        self._label_step = 1
        self._colours, self._colour_path = Colours(np.zeros([0, 0, 3], np.uint8), None), None
        self._stored: StoredImage | None = None
        self._packed: tuple[np.ndarray, np.ndarray] | None = None

    def read(self, instance: Instance, height: int, width: int, shared: Collection[str] = ()) -> np.ndarray:
        """Read the mask of one instance, bool [height, width].

        Of a file that holds those of several instances it is the part inside the box. Independent of the TensorFlow
        decoders of the training pipeline, so that each can be checked against the other.

        Args:
          instance: one that has a mask.
          height: rows that the mask must have.
          width: columns that the mask must have.
          shared: from `shared_mask_files` of its image.

        Raises:
          ValueError: the instance has no mask, or the mask has another size.
          image_files.BadFile: the file is missing.
        """
        mask = instance.mask
        if mask is None:
            raise ValueError(f"line {instance.line}: the instance has no mask")
        if isinstance(mask, StoredMask):
            return self._unpack(mask, height, width)
        if isinstance(mask, ColourMask):
            if mask.path != self._colour_path:
                self._colours, self._colour_path = open_colours(mask.path), mask.path
            pixels = colour_pixels(self._colours, mask)
        else:
            pixels = self._of_file(mask) if isinstance(mask, FileMask) else draw_mask(mask, height, width)
        if pixels.shape != (height, width):
            rows, columns = pixels.shape
            raise ValueError(
                f"line {instance.line}: mask {getattr(mask, 'path', mask)} has {columns} x {rows} pixels, "
                f"expected the image's {width} x {height} (width x height)"
            )
        return pixels & inside_box(instance.box, pixels.shape) if is_shared(mask, shared) else pixels

    def window(self, instance: Instance, height: int, width: int, shared: Collection[str] = ()) -> Window:
        """Read the mask of one instance; what its source has as outlines or runs is not drawn at the picture's size.

        Args:
          instance: as that of `read`.
          height: rows that the mask must have.
          width: columns that the mask must have.
          shared: as that of `read`.

        Raises:
          ValueError, image_files.BadFile: as `read` does.
        """
        mask = instance.mask
        if isinstance(mask, PolygonMask) and not mask.holes:
            runs = polygon_run_lengths(mask.polygons, height, width)
            return EMPTY if runs is None else decode_window({**runs, "counts": runs["counts"].decode("ascii")})
        if isinstance(mask, RunLengthMask) and mask.size == (height, width):
            return decode_window({"size": mask.size, "counts": mask.counts})
        return window_of(self.read(instance, height, width, shared))

    def _unpack(self, mask: StoredMask, height: int, width: int) -> np.ndarray:
        if mask.image != self._stored or self._packed is None:
            self._stored, self._packed = mask.image, read_stored_masks(mask.image)
        try:
            return unpack_mask(*self._packed, mask.number, height, width)
        except (LookupError, ValueError) as error:  # a record of another picture or of fewer objects
            raise RecordsError(f"{mask.image.shard}: the record at byte {mask.image.offset} lacks a mask") from error

    def _of_file(self, mask: FileMask) -> np.ndarray:
        if mask.path != self._path:
            self._load(mask.path)
        if mask.value is not None:
            first = self._values[..., 0] if self._values.ndim == 3 else self._values
            return first == mask.value * self._label_step
        non_zero = self._values != 0
        return non_zero.any(axis=-1) if non_zero.ndim == 3 else non_zero

    def _load(self, path: str) -> None:
        data = read_file(path)
        picture = PIL.Image.open(io.BytesIO(data))
        # Pillow stretches 2 and 4 bits to 8 and reads 1 bit as True.
        self._label_step = {2: 85, 4: 17}.get(png_bit_depth(data) or 8, 1)
        if picture.mode not in ("1", "L", "I", "I;16"):
            picture = picture.convert("RGB")  # leaves alpha out, replaces palette entries by their colours
        self._path, self._values = path, np.asarray(picture)


def read_mask(instance: Instance, height: int, width: int) -> np.ndarray:
    """Read the mask of one instance, bool [height, width]; see `MaskReader.read`."""
    return MaskReader().read(instance, height, width)


def is_drawn(mask: Mask | None) -> bool:
    """Tell whether a mask is of a form that a graph does not read: it is read or drawn and packed beforehand."""
    drawn = PolygonMask | RunLengthMask | ArrayMask | ColourMask | WindowMask | JoinedMask
    return isinstance(mask, drawn)


def draw_mask(mask: Mask, height: int, width: int) -> np.ndarray:
    """Draw a mask that `is_drawn`, bool [h, w] of its own size; polygons and windows have that of the picture.

    Raises:
      BadFile: it cannot be drawn; says why.
    """
    if isinstance(mask, ArrayMask):
        if mask.array.ndim != 2:
            raise BadFile("mask size", f"a mask of shape {mask.array.shape}, expected [height, width]")
        return np.asarray(mask.array) != 0
    if isinstance(mask, PolygonMask):
        drawn = polygon_pixels(mask.polygons, height, width)
        return drawn & ~polygon_pixels(mask.holes, height, width) if mask.holes else drawn
    if isinstance(mask, ColourMask):
        return colour_pixels(open_colours(mask.path), mask)
    if isinstance(mask, RunLengthMask):
        if mask.size != (height, width):  # before anything of that size is made
            raise BadFile(
                "mask size",
                f"mask {mask} has {mask.size[1]} x {mask.size[0]} pixels, its image {width} x {height} "
                "(width x height)",
            )
        return run_length_pixels(mask.counts, *mask.size)
    if isinstance(mask, WindowMask):
        return _of_window(mask, height, width)
    if isinstance(mask, JoinedMask):
        return _of_parts(mask, height, width)
    raise TypeError(f"{type(mask).__name__} is not drawn, but read from a file")


def _of_window(mask: WindowMask, height: int, width: int) -> np.ndarray:
    right, bottom = mask.left + mask.width, mask.top + mask.height
    if not (mask.left >= 0 and right <= width and mask.top >= 0 and bottom <= height):
        raise BadFile("mask size", f"a mask {mask} leaves the picture of {width} x {height} pixels")
    drawn = np.zeros([height, width], bool)
    drawn[mask.top : bottom, mask.left : right] = mask.pixels()
    return drawn


def _of_parts(mask: JoinedMask, height: int, width: int) -> np.ndarray:
    drawn = np.zeros([height, width], bool)
    for part in mask.parts:
        pixels = draw_mask(part, height, width)
        if pixels.shape != drawn.shape:
            raise BadFile("mask size", f"a mask {part} is not of the picture's size, {width} x {height}")
        drawn |= pixels
    return drawn


def picture_bytes(image: str | StoredImage | ConvertedImage) -> bytes:
    """Read the image file of an annotated image, wherever it lies, as a graph decodes it."""
    return read_stored_image(image) if isinstance(image, StoredImage) else read_picture(image)


def shared_mask_files(annotated: AnnotatedImage | ListedImage) -> set[str]:
    """Return the mask files without `#` labels that several instances of an image name.

    Such a file holds all of them; each is then the part inside its own box, which is also what its training target
    shows.
    """
    users = collections.Counter(
        instance.mask.path
        for instance in annotated.instances
        if isinstance(instance.mask, FileMask) and instance.mask.value is None
    )
    return {path for path, count in users.items() if count > 1}


def is_shared(mask: Mask | None, shared: Collection[str]) -> bool:
    """Tell whether a mask is one of several in a file of `shared_mask_files`."""
    return isinstance(mask, FileMask) and mask.value is None and mask.path in shared


def inside_box(box: Iterable[float], shape: tuple[int, int]) -> np.ndarray:
    """Return which pixels of an image a box touches, bool [height, width]."""
    x1, y1, x2, y2 = box
    inside = np.zeros(shape, bool)
    inside[math.floor(y1) : math.ceil(y2), math.floor(x1) : math.ceil(x2)] = True
    return inside
