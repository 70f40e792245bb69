"""labelme's files: a JSON file beside each picture.

Source: https://github.com/wkentaro/labelme (labelme/_label_file.py, examples/instance_segmentation)
"""

import math
import posixpath

from tpu_retinamask.data.annotations.class_names import ClassNames
from tpu_retinamask.data.masks import Mask, PolygonMask
from tpu_retinamask.data.sources.checked import BadEntry, Entry, as_whole, load_json, shown
from tpu_retinamask.data.sources.class_list import class_name
from tpu_retinamask.data.sources.draft import Draft, Picture, Shape, folder_of
from tpu_retinamask.data.sources.first_bytes import json_names, names
from tpu_retinamask.data.sources.outlines import Box, Corners, box_of_corners, ellipse, polygon_of, radius
from tpu_retinamask.data.sources.png_texts import png_window
from tpu_retinamask.data.sources.registry import SOURCES, ReadOptions, SourceContent

LOOKED_AT = 5  # files of a folder, to know it by
NAMES = {"version", "flags", "shapes", "imagePath", "imageData", "imageHeight", "imageWidth"}
WITHOUT_AREA = ("point", "points", "line", "linestrip")


class LabelmeSource:
    """Reads a folder of labelme's JSON files, or one of them; classes are sorted by name."""

    def recognise(self, path: str) -> bool:
        """Tell whether a file, or one of the first in a folder, has labelme's names."""
        files = [posixpath.join(path, name) for name in names(path) if name.lower().endswith(".json")][:LOOKED_AT]
        return any(map(_is_labelme, files or [path]))

    def read(self, path: str, classes: ClassNames | None, options: ReadOptions) -> SourceContent:
        """Read the files in the order of their names; those of a folder that are not labelme's are left out.

        Polygons, circles and masks have a mask; rectangles are boxes. Shapes of one `group_id` and label are one
        object.
        """
        draft = Draft(path, options)
        inside = [posixpath.join(path, name) for name in names(path) if name.lower().endswith(".json")]
        for number, file in enumerate(inside or [path], 1):
            content = draft.load(load_json, file) if inside else load_json(file)
            if inside and content is not None and not (isinstance(content, dict) and "shapes" in content):
                draft.leave_out("JSON files of the folder that are not labelme's")
            elif content is not None:
                draft.collect(_read_file, draft, Entry(content, file), file, number)
        return draft.settle(classes)


def _is_labelme(path: str) -> bool:
    top = json_names(path).get(1, set())
    # Where the copy of the picture comes first, nothing behind it is seen.
    return bool(top & {"shapes", "imageData"}) and len(top & NAMES) > 1


def _read_file(draft: Draft, content: Entry, file: str, number: int) -> None:
    name = content.text("imagePath")
    hint = ""
    if content.has("imageData"):
        hint = " (a copy lies in imageData, which is not read: labelme_export_json writes it to a file)"
    path = draft.finder.find(name, [folder_of(file)], f"{file}: imagePath", hint)
    size = None
    if content.has("imageWidth") and content.has("imageHeight"):
        size = content.pixels("imageWidth"), content.pixels("imageHeight")
    picture = Picture(path, name, number, file, size)
    shapes = content.items("shapes")
    draft.pictures.append(picture)

    def read(entry: Entry, at: int) -> Shape | None:
        return _shape(draft, picture, entry, at)

    draft.shapes(picture, shapes, f"{file}, shapes", read)


def _shape(draft: Draft, picture: Picture, entry: Entry, number: int) -> Shape | None:
    kind = entry.text("shape_type", "polygon")  # as files of before labelme 3.6 have it
    if kind in WITHOUT_AREA:
        draft.leave_out(f"shapes of type {kind!r}, which have no area")
        return None
    name = class_name(entry.values.get("label"), f"{entry.place}: label")
    box, mask = _drawn(entry, kind, picture)
    group = entry.values.get("group_id")
    if group is not None and not isinstance(group, int | str):
        raise BadEntry(f"{entry.place}: group_id: got {shown(group)}, expected a number or a text")
    group = group if as_whole(group) is None else as_whole(group)
    return Shape(number, entry.place, name, box, mask, group)


def _drawn(entry: Entry, kind: str, picture: Picture) -> tuple[Box | None, Mask | None]:
    place = f"{entry.place}: points"
    points = entry.items("points")
    if kind == "polygon":
        return None, PolygonMask((polygon_of(points, place),))
    if kind == "oriented_rectangle":
        return None, PolygonMask((polygon_of(points, place),))
    if kind not in ("rectangle", "circle", "mask"):
        raise BadEntry(
            f"{entry.place}: shape_type: got {shown(kind)}, expected polygon, rectangle, circle, mask, or one of "
            f"{', '.join(WITHOUT_AREA)}, which are left out"
        )
    x1, y1, x2, y2 = _two(points, place)
    if kind == "rectangle":
        return box_of_corners(x1, y1, x2, y2), None
    if kind == "circle":
        rim = radius(math.hypot(x2 - x1, y2 - y1), place)
        return None, PolygonMask((ellipse(x1, y1, rim, rim),))
    left, top, right, bottom = box_of_corners(x1, y1, x2, y2)
    # The corners are pixels of the mask, both of them: the window ends one further.
    shape = round(right) - round(left) + 1, round(bottom) - round(top) + 1
    window = png_window(entry.text("mask"), f"{entry.place}: mask", (round(left), round(top)), picture.size, shape)
    return None, window


def _two(points: list, place: str) -> Corners:
    if len(points) != 2:
        raise BadEntry(f"{place}: got {len(points)} points, expected 2")
    return polygon_of([*points, points[0]], place)[:4]


SOURCES.register("labelme")(LabelmeSource())
