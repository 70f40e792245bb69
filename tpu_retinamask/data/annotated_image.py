"""Images with their objects: as a source lists them, and once each has been opened and found good."""

import dataclasses

from tpu_retinamask.data.masks import Mask
from tpu_retinamask.data.pixel_reading import ConvertedImage
from tpu_retinamask.data.record_format import StoredImage


@dataclasses.dataclass(frozen=True)
class ListedInstance:
    """One object of one image, as its source says.

    Attributes:
      line: where the source says it: the 1-based line of an annotation file, or the number of the entry.
      box: x1, y1, x2, y2 in pixels of the image file, half-open.
      class_id: id of the class.
      mask: None where the source has none: the box is trained, the mask loss skips it.
    """

    line: int
    box: tuple[float, float, float, float]
    class_id: int
    mask: Mask | None


@dataclasses.dataclass(frozen=True)
class ListedImage:
    """One image and its instances, in their order; a negative image has none.

    Attributes:
      image: resolved path of the image file.
      name: the path as the source writes it, first appearance.
      line: where the source says it first.
      instances: the objects.
      size: height and width in pixels that the source says; None: it says none.
      words: how an error names the places of the image and of an object, with `{}` for the line.
    """

    image: str
    name: str
    line: int
    instances: tuple[ListedInstance, ...]
    size: tuple[int, int] | None = None
    words: tuple[str, str] = ("line {}", "line {}")


@dataclasses.dataclass(frozen=True)
class AnnotatedInstance:
    """An object whose box lies inside its image and whose mask, if any, has pixels inside its box.

    Attributes:
      line: where the source says it.
      box: x1, y1, x2, y2 in pixels of the image, half-open, inside the image.
      class_id: id of the class.
      mask: or None.
    """

    line: int
    box: tuple[float, float, float, float]
    class_id: int
    mask: Mask | None


@dataclasses.dataclass(frozen=True)
class AnnotatedImage:
    """An image that can be read, and its usable instances.

    Attributes:
      image: resolved path, as it is or to be converted, or the place in a prepared data set.
      name: the path as the source writes it.
      image_id: position of the image in its source, dropped images counted too.
      height: rows of the picture, upright if the orientation is applied.
      width: columns of it.
      orientation: EXIF orientation to apply to the stored pixels; 1: none.
      instances: the objects.
    """

    image: str | StoredImage | ConvertedImage
    name: str
    image_id: int
    height: int
    width: int
    orientation: int
    instances: tuple[AnnotatedInstance, ...]
