"""One object against its picture: the box clipped to it, the mask looked at where it lies, or the reason why not."""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tpu_retinamask.data.annotated_image import AnnotatedInstance, ListedInstance
from tpu_retinamask.data.images.colour_masks import has_palette
from tpu_retinamask.data.images.image_files import BadFile, ImageFile, MaskFile, load_mask
from tpu_retinamask.data.images.mask_reader import draw_mask
from tpu_retinamask.data.masks import ColourMask, FileMask, Mask, PolygonMask, RunLengthMask

Box = tuple[float, float, float, float]


class Checked(NamedTuple):
    """An object that can be used, and what there is to tell of it.

    Attributes:
      instance: the object.
      beyond: pixels by which its box stuck out of the picture before it was clipped.
      without_pixels: its polygon or run lengths cover no pixel, so that it has no mask.
      inside: share of the mask's pixels that lie in the box, rounded outwards; None: there is no mask of its own.
    """

    instance: AnnotatedInstance
    beyond: float
    without_pixels: bool
    inside: float | None


class MaskFiles:
    """The mask files of one image: each is decoded once for all its instances."""

    def __init__(self, shared: set[str]) -> None:
        """Begin with none.

        Args:
          shared: those that hold several instances without labels; see `mask_reader.shared_mask_files`.
        """
        self.shared = shared
        self._files: dict[str, MaskFile | BadFile] = {}
        self._counts: dict[str, np.ndarray] = {}

    def load(self, path: str) -> MaskFile:
        """Return a decoded file.

        Raises:
          BadFile: it cannot be used; the kind says that it is a mask.
        """
        if path not in self._files:
            try:
                self._files[path] = load_mask(path)
            except BadFile as error:
                self._files[path] = error
        found = self._files[path]
        if isinstance(found, BadFile):
            raise BadFile("mask: " + found.kind, f"mask {path}: {found}")
        return found

    def count(self, path: str, value: int) -> int:
        """Return how many pixels of a decoded file have a value."""
        if path not in self._counts:
            self._counts[path] = np.bincount(self.load(path).values.reshape(-1), minlength=1 << 16)
        return int(self._counts[path][value])


def check_instance(instance: ListedInstance, image: ImageFile, files: MaskFiles) -> Checked:
    """Clip the box of an object to its picture and look at its mask.

    Args:
      instance: as its source says.
      image: its picture.
      files: of its image.

    Raises:
      BadFile: a box without area or outside the picture; a mask of another size, empty, or outside of the box.
    """
    box, beyond = _clip(instance.box, image)
    mask, inside = instance.mask, None
    if isinstance(mask, FileMask) and mask.value is not None and _is_palette(mask.path):
        mask = ColourMask(mask.path, index=mask.value)
    if isinstance(mask, FileMask):
        mask, inside = _check_file(mask, instance, box, image, files)
    elif mask is not None:
        drawn = _draw(mask, image)
        if not drawn.any() and isinstance(mask, PolygonMask | RunLengthMask):
            _refuse_outside(mask, image)
            return Checked(AnnotatedInstance(instance.line, box, instance.class_id, None), beyond, True, None)
        absent = None
        if isinstance(mask, ColourMask):
            absent = BadFile("label absent", f"mask {mask.path} has no pixel of {_colour_of(mask)}")
        inside = _check_pixels(f"mask {mask}", drawn, lambda part: part, instance, box, image, absent)
        inside /= np.count_nonzero(drawn)
    return Checked(AnnotatedInstance(instance.line, box, instance.class_id, mask), beyond, False, inside)


def _clip(box: Box, image: ImageFile) -> tuple[Box, float]:
    x1, y1, x2, y2 = box
    said = f"the box {x1:g},{y1:g},{x2:g},{y2:g}"
    if not all(map(math.isfinite, box)):
        raise BadFile("box outside the image", f"{said} is not finite")
    if x2 <= x1 or y2 <= y1:
        raise BadFile("box without area", f"{said} has no area (x1,y1,x2,y2)")
    clipped = (max(x1, 0.0), max(y1, 0.0), min(x2, float(image.width)), min(y2, float(image.height)))
    if clipped[2] <= clipped[0] or clipped[3] <= clipped[1]:
        raise BadFile(
            "box outside the image",
            f"{said} lies outside the image of {image.width} x {image.height} pixels (width x height)",
        )
    return clipped, max(-x1, -y1, x2 - image.width, y2 - image.height, 0.0)


def _is_palette(path: str) -> bool:
    try:
        return has_palette(path)
    except BadFile:
        return False  # said by the reading


def _draw(mask: Mask, image: ImageFile) -> np.ndarray:
    try:
        return draw_mask(mask, image.height, image.width)
    except BadFile as error:
        if isinstance(mask, ColourMask):
            raise BadFile("mask: " + error.kind, f"mask {mask.path}: {error}") from None
        raise


def _refuse_outside(mask: PolygonMask | RunLengthMask, image: ImageFile) -> None:
    """Tell a polygon beside the picture from one that is too thin to cover a pixel of it."""
    if not isinstance(mask, PolygonMask):
        return
    xs = [x for polygon in mask.polygons for x in polygon[::2]]
    ys = [y for polygon in mask.polygons for y in polygon[1::2]]
    if min(xs) > image.width or max(xs) < 0 or min(ys) > image.height or max(ys) < 0:
        raise BadFile(
            "mask outside the image",
            f"the polygon from {min(xs):g},{min(ys):g} to {max(xs):g},{max(ys):g} lies outside the image of "
            f"{image.width} x {image.height} pixels (width x height)",
        )


def _check_file(
    mask: FileMask, instance: ListedInstance, box: Box, image: ImageFile, files: MaskFiles
) -> tuple[FileMask, float | None]:
    """Return the mask with the value that its label is decoded as, and the share of its pixels in the box."""
    where, file = f"mask {mask.path}", files.load(mask.path)
    if mask.value is None:
        inside = _check_pixels(where, file.values, lambda part: part != 0, instance, box, image)
        if mask.path in files.shared:
            return mask, None
        return mask, inside / np.count_nonzero(file.values)
    _check_size(where, file.values, image)
    if file.label_step is None:
        raise BadFile("not a label map", f"{where}: {file.no_labels_because}")
    value = mask.value * file.label_step
    absent = BadFile("label absent", f"{where} has no pixel of value {mask.value}")
    if value > 65535:
        raise absent
    inside = _check_pixels(where, file.values, lambda part: part == value, instance, box, image, absent)
    return dataclasses.replace(mask, decoded_value=value), inside / files.count(mask.path, value)


def _check_size(where: str, values: np.ndarray, image: ImageFile) -> None:
    height, width = values.shape
    if (height, width) != (image.height, image.width):
        raise BadFile(
            "mask size",
            (f"{where} has {width} x {height} pixels, its image {image.width} x {image.height} (width x height)"),
        )


def _check_pixels(
    where: str,
    values: np.ndarray,
    belongs: Callable[[np.ndarray], np.ndarray],
    instance: ListedInstance,
    box: Box,
    image: ImageFile,
    absent: BadFile | None = None,
) -> int:
    """Return how many pixels a mask has in its box; refuse one of another size, without any, or without any there."""
    _check_size(where, values, image)
    # The box first: of a label map that holds a hundred objects, the whole is compared only where something is wrong.
    part = values[math.floor(box[1]) : math.ceil(box[3]), math.floor(box[0]) : math.ceil(box[2])]
    if inside := np.count_nonzero(belongs(part)):
        return int(inside)
    if not np.any(belongs(values)):
        raise absent or BadFile("empty mask", f"{where} is empty: every pixel is zero")
    raise BadFile(
        "mask outside its box",
        (f"{where} has no pixel inside the box {','.join(f'{edge:g}' for edge in instance.box)}"),
    )


def _colour_of(mask: ColourMask) -> str:
    if mask.colour is None:
        return f"entry {mask.index} of its palette"
    said = f"the colour #{bytes(mask.colour).hex()}"
    # Six digits are a colour; a label of a gray map has no leading zeros.
    return f"{said} (a label of a gray map is written without leading zeros)" if said[-6:].isdecimal() else said
