"""CVAT's XML, "CVAT for images 1.1".

Source: https://docs.cvat.ai/docs/dataset_management/formats/format-cvat/ and
https://docs.cvat.ai/docs/manual/advanced/xml_format/ (annotation mode; for run lengths, "Run-length encoding")
"""

import math
import posixpath
from xml.etree.ElementTree import Element

import numpy as np

from tpu_retinamask.data.annotations.class_names import ClassNames
from tpu_retinamask.data.masks import Mask, PolygonMask, WindowMask
from tpu_retinamask.data.sources.checked import BadEntry, Entry, as_whole, load_xml, shown
from tpu_retinamask.data.sources.class_list import class_name
from tpu_retinamask.data.sources.draft import Draft, Picture, Shape, folder_of
from tpu_retinamask.data.sources.first_bytes import names, xml_root
from tpu_retinamask.data.sources.outlines import Box, ellipse, polygon_of, radius, rectangle, turned
from tpu_retinamask.data.sources.png_texts import MOST_PIXELS
from tpu_retinamask.data.sources.registry import SOURCES, ReadOptions, SourceContent
from tpu_retinamask.errors import UserError

FILE = "annotations.xml"  # in the folder that an export is unpacked to
DRAWN = ("box", "polygon", "mask", "ellipse")
WITHOUT_AREA = ("polyline", "points", "cuboid", "skeleton", "tag")


class CvatSource:
    """Reads an XML file, or the folder that holds `annotations.xml`; classes are the task's labels, in their order."""

    def recognise(self, path: str) -> bool:
        """Tell whether an XML file's element is `annotations`."""
        return xml_root(_file_of(path)) == "annotations"

    def read(self, path: str, classes: ClassNames | None, options: ReadOptions) -> SourceContent:
        """Read the images in their order.

        Polygons, masks, ellipses and turned boxes have a mask; boxes that are not turned have none. Outlines and masks
        of one label and group are one object.
        """
        file = _file_of(path)
        root = load_xml(file)
        if root.tag != "annotations":
            raise UserError(f"{file}: got the element <{root.tag}>, expected <annotations> of CVAT for images 1.1")
        if root.find("track") is not None:
            raise UserError(f"{file}: holds <track>s of a video; export the task as 'CVAT for images 1.1'")
        draft = Draft(path, options)
        for number, image in enumerate(root.findall("image"), 1):
            draft.collect(_read_image, draft, image, file, number)
        return draft.settle(classes, _labels(root, file))


def _file_of(path: str) -> str:
    return posixpath.join(path, FILE) if FILE in names(path) else path


def _labels(root: Element, file: str) -> list[str]:
    """Return the labels of the task, or of the project or job where these were exported."""
    found = [label for label in root.findall("./meta/*/labels/label") if label.findtext("parent") is None]
    return [
        class_name(label.findtext("name"), f"{file}: meta, label {number}") for number, label in enumerate(found, 1)
    ]


def _read_image(draft: Draft, image: Element, file: str, number: int) -> None:
    entry = Entry(dict(image.attrib), f"{file}, image {number}")
    name = entry.text("name")
    entry.place += f" ({name})" if name.isprintable() else ""
    folder = folder_of(file)
    folders = [folder, posixpath.join(folder, "images"), *_subset_folders(entry, folder)]
    path = draft.finder.find(name, folders, f"{entry.place}: name")
    size = entry.pixels("width"), entry.pixels("height")
    picture = Picture(path, name, number, entry.place, size)
    draft.pictures.append(picture)
    for at, element in enumerate(image, 1):
        shape = draft.collect(_shape, draft, element, f"{entry.place}, {element.tag} {at}", at, size)
        if shape is not None:
            picture.shapes.append(shape)


def _subset_folders(entry: Entry, folder: str) -> list[str]:
    # Since 2.5, an export of pictures lies in a folder for each subset.
    return [posixpath.join(folder, "images", entry.text("subset"))] if entry.has("subset") else []


def _shape(draft: Draft, element: Element, place: str, number: int, frame: tuple[float, float]) -> Shape | None:
    kind = element.tag
    if kind not in DRAWN:
        if kind in WITHOUT_AREA:
            draft.leave_out(f"<{kind}> elements, which are no outline")
        else:
            draft.leave_out("elements of kinds that are not known")
        return None
    entry = Entry(dict(element.attrib), place)
    if entry.values.get("outside") == "1":
        draft.leave_out("shapes that are outside their picture")
        return None
    name = class_name(entry.values.get("label"), f"{place}: label")
    box, mask = _drawn(entry, kind, frame)
    group = entry.whole("group_id", 0)
    # A group of boxes is several objects that belong together; one of outlines is the parts of an object.
    return Shape(number, place, name, box, mask, group if group and kind in ("polygon", "mask") else None)


def _drawn(entry: Entry, kind: str, frame: tuple[float, float]) -> tuple[Box | None, Mask | None]:
    if kind == "polygon":
        return None, PolygonMask((_polygon(entry),))
    if kind == "mask":
        return None, _runs(entry, frame)
    angle = math.radians(entry.number("rotation", 0.0) % 360)
    if kind == "ellipse":
        rx, ry = (radius(entry.pixels(key), f"{entry.place}: {key}") for key in ("rx", "ry"))
        return None, PolygonMask((ellipse(entry.pixels("cx"), entry.pixels("cy"), rx, ry, angle),))
    box = entry.pixels("xtl"), entry.pixels("ytl"), entry.pixels("xbr"), entry.pixels("ybr")
    if not angle:
        return box, None
    centre = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return None, PolygonMask((turned(rectangle(box), centre, angle),))


def _polygon(entry: Entry) -> tuple[float, ...]:
    points = [point.split(",") for point in entry.text("points").split(";") if point.strip()]
    return polygon_of(points, f"{entry.place}: points")


def _runs(entry: Entry, frame: tuple[float, float]) -> WindowMask:
    """Return the pixels of run lengths row by row in a window, the first of them zeros."""
    left, top, width, height = (entry.whole(key) for key in ("left", "top", "width", "height"))
    inside = 0 <= left < left + width <= frame[0] and 0 <= top < top + height <= frame[1]
    if not inside or width * height > MOST_PIXELS:
        raise BadEntry(
            f"{entry.place}: got a mask of {width} x {height} pixels at {left}, {top}, expected it inside the picture "
            f"of {frame[0]:g} x {frame[1]:g}"
        )
    text = entry.text("rle")
    runs = [as_whole(part) for part in text.split(",")]
    counts = [run for run in runs if run is not None and 0 <= run <= width * height]
    if len(counts) < len(runs) or sum(counts) != width * height:
        raise BadEntry(
            f"{entry.place}: rle: got {shown(text)}, expected whole numbers from 0 whose sum is {width} x {height} = "
            f"{width * height}"
        )
    marked = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return WindowMask.of(marked.reshape(height, width), left, top)


SOURCES.register("cvat")(CvatSource())
