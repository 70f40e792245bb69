"""What every tool's format has in common: pictures with shapes, which become listed images with boxes and masks."""

import collections
import dataclasses
import os
import posixpath
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import partial
from typing import Any

from tpu_retinamask.data.annotated_image import ListedImage, ListedInstance
from tpu_retinamask.data.annotations.class_names import ClassNames
from tpu_retinamask.data.masks import Mask, PolygonMask
from tpu_retinamask.data.sources.checked import BadEntry, Entry, Faults
from tpu_retinamask.data.sources.class_list import settle_classes
from tpu_retinamask.data.sources.outlines import Box, around, extent, joined, rectangle
from tpu_retinamask.data.sources.pictures import PictureFinder, PictureSize, picture_sizes
from tpu_retinamask.data.sources.registry import ReadOptions, SourceContent
from tpu_retinamask.errors import UserError


@dataclasses.dataclass
class Shape:
    """What a person drew: an object, or a part of one.

    Attributes:
      number: line of the file, or number of the entry, from 1.
      place: in the words of an error.
      name: of its class.
      box: x1, y1, x2, y2, half-open; None: what its mask reaches.
      mask: or None, for a box alone.
      group: shapes of one picture and class that have the same are one object; None: it is one by itself.
    """

    number: int
    place: str
    name: str
    box: Box | None
    mask: Mask | None = None
    group: Hashable = None


@dataclasses.dataclass
class Picture:
    """A picture and its shapes.

    Attributes:
      path: of the file.
      name: as the source writes it.
      number: line of the file, or number of the entry, from 1.
      place: in the words of an error.
      size: width, height that the source says; None: nothing.
      shapes: in their order.
    """

    path: str
    name: str
    number: int
    place: str
    size: tuple[float, float] | None = None
    shapes: list[Shape] = dataclasses.field(default_factory=list)


class Draft:
    """Gathers what a source says, with what is wrong with it and what is left out, and settles it in the end."""

    def __init__(self, source: str, options: ReadOptions) -> None:
        """Begin with nothing.

        Args:
          source: path of the file or folder.
          options: how to read it.
        """
        self.source, self.options = source, options
        self.finder = PictureFinder(options.image_folder)
        self.faults = Faults()
        self.pictures: list[Picture] = []
        self.notes: list[str] = []
        self._left_out: collections.Counter[str] = collections.Counter()

    def collect(self, read: Callable[..., Any], *arguments: Any) -> Any:
        """Return what a function reads, or None where it finds a fault, which is kept."""
        return self.faults.collect(partial(read, *arguments))

    def load(self, read: Callable[[str], Any], path: str) -> Any:
        """Return what a function reads of one file among many, or None where the file is bad, which is kept."""
        try:
            return read(path)
        except (UserError, FileNotFoundError) as error:
            self.faults.said.append(str(error))
            return None

    def shapes(self, picture: Picture, values: Iterable[Any], where: str, read: Callable[..., Shape | None]) -> None:
        """Add the shapes of a picture.

        Args:
          picture: that has them.
          values: an object each.
          where: they stand, without their number.
          read: makes a shape of (entry, number from 1); None: left out.
        """
        for number, value in enumerate(values):
            shape = self.collect(self._shape, value, f"{where}[{number}]", number + 1, read)
            if shape is not None:
                picture.shapes.append(shape)

    def _shape(self, value: Any, place: str, number: int, read: Callable[..., Shape | None]) -> Shape | None:
        return read(Entry(value, place), number)

    def leave_out(self, what: str, count: int = 1) -> None:
        """Count what is left out, to be noted in the end: "points"."""
        self._left_out[what] += count

    def settle(self, given: ClassNames | None, listed: Sequence[str] | None = None) -> SourceContent:
        """Number the classes, join what is one object, and compare sizes with those of the files.

        Outlines that reach beyond the picture have the box that is inside it.

        Args:
          given: the classes that objects may have.
          listed: those that the source lists.

        Raises:
          AnnotationError: all that is wrong.
          UserError: no object, unless that is allowed; what `settle_classes` raises.
        """
        settings = self.options.settings
        used = (shape.name for picture in self.pictures for shape in picture.shapes)
        classes, notes = (
            settle_classes(given, listed, used, self.source, settings)
            if self._has_classes(given, listed)
            else (ClassNames(()), ())
        )
        sizes = picture_sizes([picture.path for picture in self.pictures])
        images: dict[str, ListedImage] = {}
        repeated = 0
        for picture in self.pictures:
            found = self.collect(self._listed, picture, classes, sizes.get(picture.path))
            if found is None:
                continue
            earlier = images.get(found.image)
            if earlier is not None:
                repeated += 1
                found = dataclasses.replace(earlier, instances=earlier.instances + found.instances)
            images[found.image] = found
        notes = [*self.notes, *notes]
        notes += [f"left out {count} {what}" for what, count in sorted(self._left_out.items())]
        if repeated:
            notes.append(f"{repeated} entries are of a picture that an earlier one names: their objects were joined")
        notes += self.faults.finish(self.source, settings)
        if not images:
            raise UserError(f"{self.source}: no picture was found in it")
        if not settings.allow_empty and not any(image.instances for image in images.values()):
            raise UserError(
                f"{self.source}: {len(images)} pictures and no object at all; where that is meant, "
                "--gin_param='source.allow_empty=True'" + "".join(f"\n  {note}" for note in notes)
            )
        return SourceContent(classes, list(images.values()), tuple(notes))

    def _has_classes(self, given: ClassNames | None, listed: Sequence[str] | None) -> bool:
        # Where nothing is found at all, that is the error to tell, not the lack of classes.
        return given is not None or bool(listed) or any(picture.shapes for picture in self.pictures)

    def _listed(self, picture: Picture, classes: ClassNames, size: PictureSize | None) -> ListedImage:
        if size is not None and picture.size is not None and not size.agrees(*picture.size):
            width, height = picture.size
            raise BadEntry(
                f"{picture.place}: drawn on a picture of {width:g} x {height:g} pixels (width x height), but "
                f"{picture.path} has {size.width} x {size.height}"
            )
        frame = size.annotated(self.options.settings) if size is not None else picture.size
        ids, instances = classes.ids, []
        for shapes in _objects(picture.shapes):
            instance = self.collect(_instance, shapes, classes, ids, frame)
            if instance is not None:
                instances.append(instance)
        return ListedImage(picture.path, picture.name, picture.number, tuple(instances))


def folder_of(path: str) -> str:
    """Return the folder of a file, local or gs://."""
    return posixpath.dirname(path) or "."


def stem_of(path: str) -> str:
    """Return the last part of a path, without its suffix."""
    return os.path.splitext(posixpath.basename(path))[0]


def _objects(shapes: Sequence[Shape]) -> list[list[Shape]]:
    """Group the shapes that are one object, each object at the place of its first."""
    found: dict[Hashable, list[Shape]] = {}
    for number, shape in enumerate(shapes):
        key = ("alone", number) if shape.group is None else ("group", shape.name, shape.group)
        found.setdefault(key, []).append(shape)
    return list(found.values())


def _instance(
    shapes: list[Shape], classes: ClassNames, ids: dict[str, int], frame: tuple[float, float] | None
) -> ListedInstance:
    first = shapes[0]
    class_id = ids.get(first.name)
    if class_id is None:
        raise BadEntry(f"{first.place}: got the class {first.name!r}, expected {classes.expected(first.name)}")
    box = around(shape.box or (extent(shape.mask) if shape.mask else None) for shape in shapes)
    if box is None:
        raise BadEntry(f"{first.place}: got a mask without a pixel, expected one that marks the object")
    masks = [shape.mask for shape in shapes if shape.mask is not None]
    if len(shapes) > 1 and masks:  # a rectangle among outlines is one of them
        masks = [
            PolygonMask((rectangle(shape.box),)) if shape.mask is None and shape.box else shape.mask for shape in shapes
        ]
        masks = [mask for mask in masks if mask is not None]
    whole = box
    if frame is not None and all(shape.box is None for shape in shapes):
        x1, y1, x2, y2 = box
        box = max(x1, 0.0), max(y1, 0.0), min(x2, float(frame[0])), min(y2, float(frame[1]))
    if box[2] <= box[0] or box[3] <= box[1]:
        seen = "" if frame is None else f" inside the picture of {frame[0]:g} x {frame[1]:g}"
        edges = ", ".join(f"{edge:g}" for edge in whole)
        raise BadEntry(f"{first.place}: got the extent {edges}, expected one with an area{seen}")
    return ListedInstance(first.number, box, class_id, joined(masks) if masks else None)
