"""Files of VGG Image Annotator 2 (and 1): the project, the annotations as JSON, the annotations as CSV.

Source: https://www.robots.ox.ac.uk/~vgg/software/via/ and https://gitlab.com/vgg/via/-/blob/master/via-2.x.y/CodeDoc.md
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from tpu_retinamask.data.annotations.class_names import ClassNames
from tpu_retinamask.data.masks import Mask, PolygonMask
from tpu_retinamask.data.sources.checked import BadEntry, Entry, json_of, shown
from tpu_retinamask.data.sources.draft import Draft, Picture, Shape, folder_of
from tpu_retinamask.data.sources.outlines import Box, ellipse, polygon_from, radius
from tpu_retinamask.data.sources.registry import SourceContent
from tpu_retinamask.data.sources.via_shapes import (
    ALONE,
    ClassAttribute,
    choose_attribute,
    class_of,
    keys_of,
    unknown_shape,
)
from tpu_retinamask.errors import UserError

HEADER = [
    "filename",
    "file_size",
    "file_attributes",
    "region_count",
    "region_id",
    "region_shape_attributes",
    "region_attributes",
]
WITHOUT_AREA = ("point", "polyline", "line")


class Region(NamedTuple):
    """A region as the file has it.

    Attributes:
      number: line of a CSV, or number of the region in its picture, from 1.
      place: in the words of an error.
      shape: `shape_attributes`.
      attributes: `region_attributes`.
    """

    number: int
    place: str
    shape: Any
    attributes: Any


class PictureRegions(NamedTuple):
    """A picture and its regions."""

    name: str
    number: int
    place: str
    regions: list[Region]


def read_via2_json(draft: Draft, content: Any, classes: ClassNames | None) -> SourceContent:
    """Read a project, or what "Export Annotations (as json)" wrote; classes are the options of the attribute."""
    whole = Entry(content, draft.source)
    listed = whole.entry("_via_img_metadata") if whole.has("_via_img_metadata") else whole
    pictures = []
    for number, (key, value) in enumerate(listed.values.items(), 1):
        if key.startswith("_via_"):
            continue
        found = draft.collect(_picture_of, value, f"{draft.source}, {shown(key)}", number)
        if found is not None:
            pictures.append(found)
    options = _options(whole)
    titles = {name: name for name in options} or _keys(pictures)
    chosen = choose_attribute(titles, draft.source)
    return _settle(draft, pictures, chosen, classes, options.get(chosen.key or ""))


def read_via2_csv(draft: Draft, rows: list[tuple[int, list[str]]], classes: ClassNames | None) -> SourceContent:
    """Read what "Export Annotations (as csv)" wrote: (line, fields) of a region each, without the header."""
    pictures: dict[str, PictureRegions] = {}
    for line, fields in rows:
        draft.collect(_read_row, pictures, fields, f"{draft.source}, line {line}", line)
    found = list(pictures.values())
    return _settle(draft, found, choose_attribute(_keys(found), draft.source), classes, None)


def _read_row(pictures: dict[str, PictureRegions], fields: list[str], place: str, line: int) -> None:
    if len(fields) != len(HEADER):
        raise BadEntry(f"{place}: got {len(fields)} columns, expected the {len(HEADER)} of the header")
    name = fields[0]
    picture = pictures.setdefault(name, PictureRegions(name, line, place, []))
    try:
        shape, attributes = (json_of(text or "{}", place) for text in fields[5:7])
    except UserError as error:
        raise BadEntry(str(error)) from None
    if shape != {}:  # a picture without regions has a row all the same
        picture.regions.append(Region(line, place, shape, attributes))


def _picture_of(value: Any, place: str, number: int) -> PictureRegions:
    entry = Entry(value, place)
    regions = entry.values.get("regions")
    values = list(regions.values()) if isinstance(regions, dict) else entry.items("regions", [])  # version 1: an object
    found = []
    for at, value in enumerate(values):
        region = Entry(value, f"{place}, regions[{at}]")
        found.append(
            Region(
                at + 1, region.place, region.values.get("shape_attributes"), region.values.get("region_attributes", {})
            )
        )
    return PictureRegions(entry.text("filename"), number, place, found)


def _options(whole: Entry) -> dict[str, list[str] | None]:
    """Return the attributes that the project defines for regions, each with its options, if it has any."""
    found = {}
    if whole.has("_via_attributes") and whole.entry("_via_attributes").has("region"):
        for name, attribute in whole.entry("_via_attributes").entry("region").values.items():
            options = attribute.get("options") if isinstance(attribute, dict) else None
            found[name] = list(options) if isinstance(options, dict) and options else None
    return found


def _keys(pictures: list[PictureRegions]) -> dict[str, str]:
    return keys_of(region.attributes for picture in pictures for region in picture.regions)


def _settle(
    draft: Draft,
    pictures: list[PictureRegions],
    chosen: ClassAttribute,
    classes: ClassNames | None,
    listed: list[str] | None,
) -> SourceContent:
    alone = classes.name_of(0) if classes is not None and classes.num_classes == 1 else ALONE
    if chosen.note and any(picture.regions for picture in pictures):
        draft.notes.append(chosen.note.replace(repr(ALONE), repr(alone)))
    for found in pictures:
        path = draft.collect(draft.finder.find, found.name, [folder_of(draft.source)], f"{found.place}: filename")
        if path is None:
            continue
        picture = Picture(path, found.name, found.number, found.place)
        draft.pictures.append(picture)
        for region in found.regions:
            shape = draft.collect(_shape, draft, region, chosen.key, alone)
            if shape is not None:
                picture.shapes.append(shape)
    return draft.settle(classes, listed)


def _shape(draft: Draft, region: Region, key: str | None, alone: str) -> Shape | None:
    shape = Entry(region.shape, f"{region.place}: shape_attributes")
    kind = shape.text("name")
    if kind in WITHOUT_AREA:
        draft.leave_out(f"regions of the shape {kind!r}, which have no area")
        return None
    name = class_of(
        Entry(region.attributes, f"{region.place}: region_attributes").values, key, region.place, alone=alone
    )
    box, mask = _drawn(shape, kind)
    return Shape(region.number, region.place, name, box, mask)


def _drawn(shape: Entry, kind: str) -> tuple[Box | None, Mask | None]:
    if kind == "rect":
        x, y = shape.pixels("x"), shape.pixels("y")
        return (x, y, x + shape.pixels("width"), y + shape.pixels("height")), None
    if kind == "polygon":
        return None, PolygonMask((polygon_from(list(_corners(shape)), shape.place),))
    if kind == "circle":
        rim = radius(shape.pixels("r"), f"{shape.place}.r")
        return None, PolygonMask((ellipse(shape.pixels("cx"), shape.pixels("cy"), rim, rim),))
    if kind == "ellipse":
        rx, ry = (radius(shape.pixels(name), f"{shape.place}.{name}") for name in ("rx", "ry"))
        corners = ellipse(shape.pixels("cx"), shape.pixels("cy"), rx, ry, shape.pixels("theta", 0.0))
        return None, PolygonMask((corners,))
    raise unknown_shape(kind, shape.place, f"rect, polygon, circle, ellipse, or {', '.join(WITHOUT_AREA)}")


def _corners(shape: Entry) -> Iterator[float]:
    xs, ys = shape.items("all_points_x"), shape.items("all_points_y")
    if len(xs) != len(ys):
        raise BadEntry(
            f"{shape.place}: got {len(xs)} all_points_x and {len(ys)} all_points_y, expected as many of each"
        )
    for x, y in zip(xs, ys):
        point = Entry({"all_points_x": x, "all_points_y": y}, shape.place)
        yield point.pixels("all_points_x")
        yield point.pixels("all_points_y")
