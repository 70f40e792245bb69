"""Files of VGG Image Annotator 3: the project as JSON, the export as CSV.

Source: https://gitlab.com/vgg/via/-/blob/master/via-3.x.y/CodeDoc.md (project, metadata, `_VIA_RSHAPE`, export to CSV)
"""

from typing import Any

from tpu_retinamask.data.annotations.class_names import ClassNames
from tpu_retinamask.data.masks import Mask, PolygonMask
from tpu_retinamask.data.sources.checked import BadEntry, Entry, as_pixels, json_of, shown
from tpu_retinamask.data.sources.draft import Draft, Picture, Shape, folder_of
from tpu_retinamask.data.sources.outlines import Box, ellipse, polygon_from, radius
from tpu_retinamask.data.sources.registry import SourceContent
from tpu_retinamask.data.sources.via_shapes import ALONE, choose_attribute, class_of, keys_of, unknown_shape
from tpu_retinamask.errors import UserError

HEADER = ["metadata_id", "file_list", "flags", "temporal_coordinates", "spatial_coordinates", "metadata"]
RECTANGLES, CIRCLES, ELLIPSE, POLYGON = (2, 8), (3, 9), 4, 7
WITHOUT_AREA = {1: "point", 5: "line", 6: "polyline"}
REGION = "FILE1_Z0_XY1"  # the anchor of attributes of a region in one file
CHECKBOX, RADIO, SELECT = 2, 3, 4  # kinds of attributes, whose values are numbers of options


def read_via3_json(draft: Draft, content: Any, classes: ClassNames | None) -> SourceContent:
    """Read a project; classes are the options of the attribute, in their order."""
    whole = Entry(content, draft.source)
    attributes = _attributes(whole)
    chosen = choose_attribute({key: entry.text("aname", key) for key, entry in attributes.items()}, draft.source)
    options = _options(attributes[chosen.key]) if chosen.key is not None else {}
    pictures = _pictures(draft, whole)
    metadata = whole.entry("metadata").values if whole.has("metadata") else {}
    alone = _alone(classes)
    if chosen.note and metadata:
        draft.notes.append(chosen.note.replace(repr(ALONE), repr(alone)))
    for number, (key, value) in enumerate(metadata.items(), 1):
        draft.collect(
            _read_metadata,
            draft,
            pictures,
            value,
            f"{draft.source}, metadata {key}",
            number,
            chosen.key,
            options,
            alone,
        )
    return draft.settle(classes, list(dict.fromkeys(options.values())) or None)


def read_via3_csv(draft: Draft, rows: list[tuple[int, list[str]]], classes: ClassNames | None) -> SourceContent:
    """Read an export to CSV: (line, fields) of a region each; what is chosen from options is there by its number."""
    read = []
    for line, fields in rows:
        found = draft.collect(_row, fields, f"{draft.source}, line {line}", line)
        if found is not None:
            read.append(found)
    chosen = choose_attribute(keys_of(entry.values["av"] for _, entry in read if entry.values["xy"]), draft.source)
    alone = _alone(classes)
    if chosen.note and read:
        draft.notes.append(chosen.note.replace(repr(ALONE), repr(alone)))
    pictures: dict[str, Picture] = {}
    for line, entry in read:
        draft.collect(_read_row, draft, pictures, entry, line, chosen.key, alone)
    return draft.settle(classes)


def _alone(classes: ClassNames | None) -> str:
    return classes.name_of(0) if classes is not None and classes.num_classes == 1 else ALONE


def _attributes(whole: Entry) -> dict[str, Entry]:
    """Return the attributes of regions by their numbers."""
    listed = whole.entry("attribute").values if whole.has("attribute") else {}
    found = {key: Entry(value, f"{whole.place}, attribute {key}") for key, value in listed.items()}
    return {key: entry for key, entry in found.items() if entry.text("anchor_id", REGION) == REGION}


def _options(attribute: Entry) -> dict[str, str]:
    """Return number -> text of the options of an attribute; empty: it is free text."""
    if attribute.whole("type", 1) not in (CHECKBOX, RADIO, SELECT) or not attribute.has("options"):
        return {}
    options = attribute.entry("options")
    return {key: options.text(key) for key in options.values}


def _pictures(draft: Draft, whole: Entry) -> dict[str, Picture | None]:
    """Return the picture of each view, in their order; None: its file is bad, which has been told."""
    files, views = whole.entry("file"), whole.entry("view")
    order = whole.entry("project").items("vid_list", []) if whole.has("project") else []
    numbers = dict.fromkeys([*map(str, order), *views.values])
    found: dict[str, Picture | None] = {}
    for number, view in enumerate(numbers, 1):
        picture = draft.collect(_picture, draft, files, views, view, number) if view in views.values else None
        found[view] = picture
        if picture is not None:
            draft.pictures.append(picture)
    return found


def _picture(draft: Draft, files: Entry, views: Entry, view: str, number: int) -> Picture:
    listed = views.entry(view).items("fid_list")
    if len(listed) != 1:
        raise BadEntry(f"{views.place}.{view}: fid_list: got {len(listed)} files, expected one picture a view")
    file = files.entry(str(listed[0]))
    name = file.text("fname", "") or file.text("src")
    return _found(draft, name, number, f"{file.place}: fname")


def _found(draft: Draft, name: str, number: int, place: str) -> Picture:
    return Picture(draft.finder.find(name, [folder_of(draft.source)], place), name, number, place)


def _read_metadata(
    draft: Draft,
    pictures: dict[str, Picture | None],
    value: Any,
    place: str,
    number: int,
    key: str | None,
    options: dict[str, str],
    alone: str,
) -> None:
    entry = Entry(value, place)
    view = str(entry.values.get("vid"))
    if view not in pictures:
        raise BadEntry(f"{place}: vid: got {shown(view)}, expected one of the {len(pictures)} views")
    picture = pictures[view]
    if picture is not None:
        _add(draft, picture, entry, number, key, options, alone)


def _row(fields: list[str], place: str, line: int) -> tuple[int, Entry]:
    if len(fields) != len(HEADER):
        raise BadEntry(f"{place}: got {len(fields)} columns, expected {len(HEADER)}: {','.join(HEADER)}")
    try:
        files, z, xy, av = (json_of(fields[at] or "null", f"{place}: {HEADER[at]}") for at in (1, 3, 4, 5))
    except UserError as error:
        raise BadEntry(str(error)) from None
    entry = Entry({"files": files, "z": z or [], "xy": xy or [], "av": av or {}}, place)
    return line, entry


def _read_row(draft: Draft, pictures: dict[str, Picture], entry: Entry, line: int, key: str | None, alone: str) -> None:
    files = entry.items("files")
    if len(files) != 1 or not isinstance(files[0], str):
        raise BadEntry(f"{entry.place}: file_list: got {shown(files)}, expected the name of one picture")
    name = files[0]
    if name not in pictures:
        pictures[name] = _found(draft, name, line, f"{entry.place}: file_list")
        draft.pictures.append(pictures[name])
    _add(draft, pictures[name], entry, line, key, {}, alone)


def _add(
    draft: Draft, picture: Picture, entry: Entry, number: int, key: str | None, options: dict[str, str], alone: str
) -> None:
    if entry.items("z", []):
        draft.leave_out("segments of time")
        return
    xy = entry.items("xy", [])
    if not xy:
        draft.leave_out("metadata of a whole picture")
        return
    if isinstance(xy[0], list | dict):
        raise BadEntry(f"{entry.place}: xy: got {shown(xy[0])}, expected the number of a shape")
    if xy[0] in WITHOUT_AREA:
        draft.leave_out(f"regions of the shape {WITHOUT_AREA[xy[0]]!r}, which have no area")
        return
    box, mask = _drawn(xy, f"{entry.place}: xy")
    values = entry.entry("av").values if entry.has("av") else {}
    name = class_of(_chosen_options(values, key, options, entry.place), key, entry.place, alone=alone)
    picture.shapes.append(Shape(number, entry.place, name, box, mask))


def _chosen_options(values: dict, key: str | None, options: dict[str, str], place: str) -> dict:
    """Return values with the text of an option in place of its number; a checkbox says several, "0,2"."""
    value = values.get(key) if key is not None else None
    if not options or value is None or value == "":
        return values
    numbers = [part for part in str(value).split(",") if part]
    if len(numbers) != 1 or numbers[0] not in options:
        raise BadEntry(
            f"{place}: av {key}: got {shown(value)}, expected one of the options {', '.join(list(options)[:10])}"
        )
    return {key: options[numbers[0]]}


def _drawn(xy: list, place: str) -> tuple[Box | None, Mask | None]:
    kind = xy[0]
    numbers = [as_pixels(value) for value in xy[1:]]
    values = [number for number in numbers if number is not None]
    if len(values) < len(numbers):
        raise BadEntry(f"{place}: got {shown(xy[1 + numbers.index(None)])}, expected a number of pixels")
    if kind in RECTANGLES:
        x, y, width, height = _as_many(values, 4, place)
        return (x, y, x + width, y + height), None
    if kind in CIRCLES:
        x, y, rim = _as_many(values, 3, place)
        return None, PolygonMask((ellipse(x, y, radius(rim, place), rim),))
    if kind == ELLIPSE:
        x, y, rx, ry = _as_many(values, 4, place)
        return None, PolygonMask((ellipse(x, y, radius(rx, place), radius(ry, place)),))
    if kind == POLYGON:
        if len(values) % 2:
            raise BadEntry(f"{place}: got {len(values)} numbers, expected x, y, x, y, ...")
        return None, PolygonMask((polygon_from(values, place),))
    raise unknown_shape(
        kind, place, "2 (rectangle), 3 (circle), 4 (ellipse), 7 (polygon), 8, 9; 1, 5 and 6 are left out"
    )


def _as_many(values: list[float], count: int, place: str) -> list[float]:
    if len(values) != count:
        raise BadEntry(f"{place}: got {len(values)} numbers, expected {count}")
    return values
