"""Supervisely's format: a JSON file in `ann/` for each picture in `img/`.

Source: https://developer.supervisely.com/getting-started/supervisely-annotation-format/objects and
https://developer.supervisely.com/app-development/advanced/coordinate-system
"""

import itertools
import posixpath
from collections.abc import Iterator

from tpu_retinamask.data.annotations.class_names import ClassNames
from tpu_retinamask.data.masks import Mask, PolygonMask
from tpu_retinamask.data.sources.checked import BadEntry, Entry, as_pixels, load_json, shown
from tpu_retinamask.data.sources.class_list import class_name
from tpu_retinamask.data.sources.draft import Draft, Picture, Shape, folder_of
from tpu_retinamask.data.sources.first_bytes import json_names, names
from tpu_retinamask.data.sources.outlines import Box, box_of_corners, polygon_of
from tpu_retinamask.data.sources.png_texts import png_window
from tpu_retinamask.data.sources.registry import SOURCES, ReadOptions, SourceContent

DEEPEST = 8  # folders below the project's that are looked into: data sets can hold data sets
LOOKED_AT = 3  # files of a folder, to know it by
MOST_FOLDERS = 50  # that are listed to know a project
DRAWN = ("polygon", "rectangle", "bitmap")


class SuperviselySource:
    """Reads a project, or a data set of one; classes are those of `meta.json`, in its order, else sorted."""

    def recognise(self, path: str) -> bool:
        """Tell whether a folder holds, at some depth, `ann/` with files that have Supervisely's names."""
        files = _files(path, DEEPEST, itertools.repeat(True, MOST_FOLDERS))
        return any(_is_annotation(file) for file in itertools.islice(files, LOOKED_AT))

    def read(self, path: str, classes: ClassNames | None, options: ReadOptions) -> SourceContent:
        """Read the files in the order of their folders and names.

        Polygons, less their interiors, and bitmaps have a mask; rectangles are boxes. A rectangle's corners are its
        first and last pixels, so that x2 = right + 1; corners of polygons are taken as they are.
        """
        draft = Draft(path, options)
        files = list(_files(path, DEEPEST, itertools.repeat(True)))
        for number, file in enumerate(files, 1):
            content = draft.load(load_json, file)
            if content is not None:
                draft.collect(_read_file, draft, Entry(content, file), file, number)
        return draft.settle(classes, _listed_classes(path))


def _files(path: str, depth: int, going_on: Iterator[bool]) -> Iterator[str]:
    """Yield the annotation files of a data set, or of all data sets of a project.

    Args:
      path: of a folder.
      depth: folders below it that are looked into.
      going_on: ends before another folder is listed.
    """
    if not next(going_on, False):
        return
    inside = names(path)
    if "ann" in inside:
        folder = posixpath.join(path, "ann")
        yield from (posixpath.join(folder, name) for name in names(folder) if name.lower().endswith(".json"))
    for name in inside if depth else []:
        # What has a suffix is taken for a file, which is not to be asked for its list.
        if name not in ("ann", "img") and not posixpath.splitext(name)[1]:
            yield from _files(posixpath.join(path, name), depth - 1, going_on)


def _is_annotation(file: str) -> bool:
    return {"objects", "size"} <= json_names(file).get(1, set())


def _listed_classes(path: str) -> list[str] | None:
    """Return the classes of the meta.json of the folder, or of one above it."""
    folder = path.rstrip("/")
    for _ in range(DEEPEST):
        if "meta.json" in names(folder or "."):
            file = posixpath.join(folder, "meta.json")
            content = Entry(load_json(file), file)
            return [
                class_name(entry.values.get("title"), f"{entry.place}.title") for entry in content.entries("classes")
            ]
        if not posixpath.basename(folder) or folder.endswith(":/"):
            return None
        folder = posixpath.dirname(folder)
    return None


def _read_file(draft: Draft, content: Entry, file: str, number: int) -> None:
    name = posixpath.basename(file)[: -len(".json")]
    data_set = posixpath.dirname(folder_of(file))
    path = draft.finder.find(name, [posixpath.join(data_set, "img")], file)
    size = content.entry("size")
    frame = size.pixels("width"), size.pixels("height")
    picture = Picture(path, name, number, file, frame)
    objects = content.items("objects")
    draft.pictures.append(picture)

    def read(entry: Entry, at: int) -> Shape | None:
        kind = entry.text("geometryType")
        if kind not in DRAWN:
            draft.leave_out(f"objects of the geometry {shown(kind)}")
            return None
        title = class_name(entry.values.get("classTitle"), f"{entry.place}: classTitle")
        box, mask = _drawn(entry, kind, frame)
        return Shape(at, entry.place, title, box, mask)

    draft.shapes(picture, objects, f"{file}, objects", read)


def _drawn(entry: Entry, kind: str, frame: tuple[float, float]) -> tuple[Box | None, Mask | None]:
    if kind == "bitmap":
        bitmap = entry.entry("bitmap")
        corner = _point(bitmap.items("origin"), f"{bitmap.place}.origin")
        return None, png_window(bitmap.text("data"), f"{bitmap.place}.data", corner, frame, compressed=True)
    points = entry.entry("points")
    exterior = points.items("exterior")
    if kind == "polygon":
        interior = points.items("interior", [])
        holes = [polygon_of(hole, f"{points.place}.interior[{at}]") for at, hole in enumerate(interior)]
        return None, PolygonMask((polygon_of(exterior, f"{points.place}.exterior"),), tuple(holes))
    if len(exterior) != 2:
        raise BadEntry(f"{points.place}.exterior: got {len(exterior)} points, expected the 2 corners of a rectangle")
    x1, y1, x2, y2 = polygon_of([*exterior, exterior[0]], f"{points.place}.exterior")[:4]
    left, top, right, bottom = box_of_corners(x1, y1, x2, y2)
    return (left, top, right + 1, bottom + 1), None


def _point(values: list, place: str) -> tuple[int, int]:
    numbers = [as_pixels(value) for value in values]
    whole = [int(number) for number in numbers if number is not None and number == int(number)]
    if len(whole) != 2 or len(values) != 2:
        raise BadEntry(f"{place}: got {shown(values)}, expected the column and row of a pixel")
    return whole[0], whole[1]


SOURCES.register("supervisely")(SuperviselySource())
